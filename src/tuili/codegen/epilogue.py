"""Epilogue: the elementwise body that a kernel applies to its results before it stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuili.codegen.bounds import bound_of
from tuili.codegen.expr import final_quantize, print_body
from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.packing import block_channels, pad_to_multiple
from tuili.errors import InternalError
from tuili.ir import Graph, Node, Value, block_of
from tuili.tensors import Array, DType, numel


@dataclass(frozen=True, slots=True)
class _Operand:
    """An extra operand: a pointer and how it is indexed."""

    kind: str  # "full", "channel" or "scalar"
    name: str
    padded: bool = True  # whole vectors never reach beyond the end
    codes: str = ""  # "_u8" or "_i8" when bytes are read


CODES = {DType.U8: "_u8", DType.I8: "_i8"}


class Epilogue:
    """Adds the extra operands of a node to a kernel and prints its body, vector or scalar.

    Names that it makes are unique within the kernel, so statements may go into any scope.
    """

    def __init__(self, k: KernelBuilder, node: Node, own_slots: int) -> None:
        body = node.attrs.get("epilogue")
        self._body = body if isinstance(body, Graph) else None
        self._known: dict[int, Array] = {}
        self._operands: list[_Operand | None] = []
        self._printed = 0
        for index, value in enumerate(node.inputs[own_slots:] if self._body else ()):
            if value is None:
                raise InternalError(f"{node.label}: an operand of the epilogue is missing")
            if value.constant is not None and value.constant.size == 1:
                self._known[index + 1] = value.constant
                self._operands.append(None)
            else:
                self._operands.append(_read_operand(k, node, value, f"extra{index}"))

    @property
    def empty(self) -> bool:
        """Whether results are stored as they are."""
        return self._body is None

    @property
    def final_zero(self) -> int | None:
        """The zero point of the codes that it ends in, when a store can make them."""
        return None if self._body is None else final_quantize(self._body, self._known)

    def final_bound(self, x: float) -> float:
        """How large codes may be before they are cut, for results of at most `x`."""
        return np.inf if self._body is None else bound_of(self._body, {0: x}, self._known)

    def vector(
        self, acc: str, full: str, channel: str, *, rounds: bool = True
    ) -> tuple[list[str], str]:
        """Statements and the result for V outputs in `acc` (a vector expression).

        `full` is the C index of the first of them in the output, `channel` their first channel.
        Without `rounds` the result is the real number that codes are made of.
        """

        def load(operand: _Operand) -> str:
            if operand.kind == "scalar":
                return f"v_set1({operand.name}[0])"
            if operand.kind == "full":
                return f"v_load{operand.codes}({operand.name} + {full})"
            if operand.padded:
                return f"v_load({operand.name} + {channel})"
            left = f"{operand.name}_size - ({channel})"
            whole = f"v_load({operand.name} + {channel})"
            return f"{left} >= V ? {whole} : v_loadn({operand.name} + {channel}, {left})"

        return self._print(acc, load, vector=True, rounds=rounds)

    def beside(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result for V neighbours of one channel in `acc`."""
        index = {"scalar": "0", "channel": channel}

        def load(operand: _Operand) -> str:
            if operand.kind == "full":
                return f"v_load{operand.codes}({operand.name} + {full})"
            return f"v_set1({operand.name}[{index[operand.kind]}])"

        return self._print(acc, load, vector=True)

    def scalar(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result for one output in `acc`."""
        index = {"scalar": "0", "full": full, "channel": channel}
        return self._print(
            acc, lambda operand: f"{operand.name}[{index[operand.kind]}]", vector=False
        )

    def _print(
        self, acc: str, load: Callable[[_Operand], str], *, vector: bool, rounds: bool = True
    ) -> tuple[list[str], str]:
        if self._body is None:
            return [], acc
        prefix = f"e{self._printed}_" if self._printed else "e_"
        self._printed += 1
        ctype = "vf" if vector else "float"
        statements = [f"const {ctype} {prefix}x = {acc};"]
        args = [f"{prefix}x"]
        for index, operand in enumerate(self._operands):
            name = f"{prefix}in{index}"
            args.append(name)
            if operand is not None:
                statements.append(f"const {ctype} {name} = {load(operand)};")
        body, result = print_body(
            self._body, args, vector=vector, prefix=prefix, known=self._known, rounds=rounds
        )
        return [*statements, *body], result


def _read_operand(k: KernelBuilder, node: Node, value: Value, name: str) -> _Operand:
    output = node.output
    block = block_of(output.layout)
    if numel(value.shape) == 1:
        return _Operand("scalar", k.read(name, value))
    if value.shape == output.shape:
        if value.constant is not None and block > 1:
            return _Operand("full", k.weight(name, block_channels(value.constant, block)))
        if value.layout != output.layout:
            raise InternalError(
                f"{node.label}: operand {value.name!r} is not in the output's layout"
            )
        return _Operand("full", k.read(name, value), codes=CODES.get(value.dtype, ""))
    if value.constant is not None:
        return _Operand("channel", k.weight(name, pad_to_multiple(value.constant, 64)))
    k.read(name, value)
    if value.layout or not output.layout:
        # Blocked memory is padded; plain outputs are written in vectors inside the row only.
        return _Operand("channel", name)
    k.dim(f"{name}_size", numel(value.shape))
    return _Operand("channel", name, padded=False)
