"""Both ends of sums of floats: the bias, and the epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.packing import pad_to_multiple
from tuili.ir import Node

OWN_SLOTS = 3  # x, w, bias


class FloatEnds:
    """Declares the bias of a product in its kernel and prints both ends of a sum."""

    def __init__(self, k: KernelBuilder, node: Node, columns: int) -> None:
        """The bias, a constant if there is one, is padded to a multiple of `columns`."""
        bias = node.input(2)
        self._has_bias = bias is not None
        if bias is not None and bias.constant is not None:
            k.weight("bias", pad_to_multiple(bias.constant, columns))
        self._epilogue = Epilogue(k, node, OWN_SLOTS)

    def start(self, name: str, channel: str) -> str:
        """C that declares where V sums begin."""
        return f"const vf {name} = {f'v_load(bias + {channel})' if self._has_bias else '{0}'};"

    def vector(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result of V sums in `acc`; see `Epilogue.vector`."""
        return self._epilogue.vector(acc, full, channel)

    def scalar(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result of one sum in `acc`."""
        return self._epilogue.scalar(acc, full, channel)

    def store(self, place: str, result: str) -> str:
        """The C statement that stores V results."""
        return f"v_store({place}, {result});"

    def stores(self, accs: Sequence[str], full: str, channel: str) -> list[str]:
        """C that stores the results of sums that lie side by side from output `full` on."""
        lines: list[str] = []
        for index, acc in enumerate(accs):
            where = f"{full} + {index} * V"
            statements, result = self.vector(acc, where, channel)
            lines.append("{ " + " ".join([*statements, self.store(f"y + {where}", result)]) + " }")
        return lines
