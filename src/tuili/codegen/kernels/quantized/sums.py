"""Where the sums of a quantized product begin and what becomes of them.

begin:  bias - (x_zero + shift) * sum(w)         by output, known unless x_zero is not
end:    f32(sum) * multiplier, the epilogue, a store of floats or codes
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.codegen.epilogue import CODES, Epilogue
from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.packing import pad_to_multiple
from tuili.ir import Node, Value
from tuili.tensors import Array, numel

SMALL = 1e9  # i32 holds these, and their sums with a zero point
OWN_SLOTS = 5  # x, w, x_zero, bias, multiplier


def known_zero(node: Node) -> int | None:
    """The zero point of the codes; None when it is found as the model runs."""
    zero = node.input(2)
    if zero is None:
        return 0
    return None if zero.constant is None else int(zero.constant.item())


def are_sums_known(node: Node) -> bool:
    """Whether bias and weights are constants."""
    bias = node.input(3)
    return node.required(1).is_constant and (bias is None or bias.is_constant)


class Sums:
    """Declares the parameters of a product in its kernel and prints both ends of a sum."""

    def __init__(self, k: KernelBuilder, node: Node, dot: Dot, sums: Array) -> None:
        self._node = node
        self.epilogue = Epilogue(k, node, OWN_SLOTS)
        self._shift = dot.shifts[node.required(0).dtype]
        self._begin(k, node, sums)
        self._multiplier = _read_multiplier(k, node.input(4), sums.size)
        self._codes = CODES.get(node.output.dtype, "")
        self._final = self.epilogue.final_zero
        self._small = int(self._final is not None and self._bound(node) < SMALL)

    def _bound(self, node: Node) -> float:
        """How large codes may be before they are cut; sums are i32."""
        multiplier = node.input(4)
        factor = None if multiplier is None else multiplier.constant
        largest = np.inf if factor is None else float(np.abs(factor).max(initial=0))
        return self.epilogue.final_bound(2.0**31 * largest)

    def _begin(self, k: KernelBuilder, node: Node, sums: Array) -> None:
        """`start_of`: the first part; `sums_of` where the zero point comes later."""
        begin = np.zeros(sums.size, np.int64)
        bias = node.input(3)
        if bias is not None and bias.constant is not None:
            # One bias for all outputs broadcasts.
            values = bias.constant.reshape(-1).astype(np.int64)
            count = min(values.size, sums.size) if values.size > 1 else sums.size
            begin[:count] = values if values.size == 1 else values[:count]
        zero = known_zero(node)
        begin -= ((zero or 0) + self._shift) * sums.astype(np.int64)
        k.weight("begin_of", begin.astype(np.int32))  # sums wrap around as i32 does
        self._late = zero is None
        if zero is None:
            k.read("zero", node.required(2))
            k.weight("sums_of", sums)

    def start(self, name: str, channel: str) -> str:
        """C that declares the first part of V sums."""
        begin = f"*(const vi_any *)(begin_of + {channel})"
        if self._late:
            begin += f" - v_iset1(zero[0]) * *(const vi_any *)(sums_of + {channel})"
        return f"const vi {name} = {begin};"

    def vector(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result of V sums in `acc`; see `Epilogue.vector`."""
        real = f"v_to_float({acc})"
        if self._multiplier is not None:
            real = f"v_exact({real} * {self._multiplier.format(channel=channel)})"
        return self.epilogue.vector(real, full, channel, rounds=self._final is None)

    def scalar(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result of one sum in `acc`."""
        real = f"(float){acc}"
        if self._multiplier is not None:
            text = self._scalar_multiplier().format(channel=channel)
            real = f"s_exact({real} * {text})"
        return self.epilogue.scalar(real, full, channel)

    def _scalar_multiplier(self) -> str:
        assert self._multiplier is not None
        return "factors[0]" if "factors[0]" in self._multiplier else "factors[{channel}]"

    def store(self, place: str, result: str) -> str:
        """The C statement that stores V results."""
        if self._final is None:
            return f"v_store{self._codes}({place}, {result});"
        return f"v_quantize{self._codes}({place}, {result}, {self._final}, {self._small});"

    def stores(self, accs: Sequence[str], full: str, channel: str) -> list[str]:
        """C that stores the results of sums that lie side by side from output `full` on."""
        lines: list[str] = []
        done = 0
        while self._final is not None and done + 4 <= len(accs):
            statements: list[str] = []
            results: list[str] = []
            for index in range(done, done + 4):
                where = f"{full} + {index} * V"
                found, result = self.vector(accs[index], where, channel)
                statements += [*found, f"const vf r{index} = {result};"]
                results.append(f"r{index}")
            place = f"y + {full} + {done} * V"
            last = f"{', '.join(results)}, {self._final}, {self._small}"
            store = f"v_quantize4{self._codes}({place}, {last});"
            lines += ["{", *(f"    {line}" for line in [*statements, store]), "}"]
            done += 4
        for index in range(done, len(accs)):
            where = f"{full} + {index} * V"
            statements, result = self.vector(accs[index], where, channel)
            lines.append("{ " + " ".join([*statements, self.store(f"y + {where}", result)]) + " }")
        return lines


def _read_multiplier(k: KernelBuilder, value: Value | None, outputs: int) -> str | None:
    """The factor of V sums as C, `{channel}` being their first output."""
    if value is None:
        return None
    if numel(value.shape) == 1:
        k.read("factors", value)
        return "v_set1(factors[0])"
    if value.constant is not None:
        k.weight("factors", pad_to_multiple(value.constant.astype(np.float32), outputs))
        return "v_load(factors + {channel})"
    k.read("factors", value)
    k.dim("FACTORS", numel(value.shape))
    whole = "v_load(factors + {channel})"
    left = "FACTORS - ({channel})"
    return f"({left} >= V ? {whole} : v_loadn(factors + {{channel}}, {left}))"
