"""The loops that row-major windows of any rank share: an item is one row of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.shape import Axis
from tuili.codegen.text import indent
from tuili.ir import Node

PIECE = 256  # outputs whose sums are kept at a time


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Names and loops of one kernel: I input sizes, O output sizes, K taps, S, D, P per axis."""

    axes: list[Axis]

    @property
    def last(self) -> int:
        return len(self.axes) - 1

    def declare(self, k: KernelBuilder) -> None:
        for index, axis in enumerate(self.axes):
            names = " ".join(f"{letter}{index}" for letter in "IOKSDPE")
            sizes = (axis.size, axis.out, axis.taps, axis.stride, axis.dilation, axis.pad, axis.end)
            k.dims(names, sizes)
            k.body(f"(void)I{index}, (void)O{index}, (void)P{index}, (void)E{index};")

    def split_item(self, channels: str) -> list[str]:
        """`o0`, `o1`, ..., `m` (channel) and `n` of a grid item."""
        lines = ["int64_t rest = item;"]
        for index in reversed(range(self.last)):
            lines += [f"const int64_t o{index} = rest % O{index};", f"rest /= O{index};"]
        return [*lines, f"const int64_t m = rest % {channels}, n = rest / {channels};", "(void)n;"]

    def tap_loops(self, body: Sequence[str], *, transposed: bool = False) -> list[str]:
        """Loops over all taps but those of the last axis; `i0`, `i1`, ... are inside the input."""
        lines = list(body)
        for index in reversed(range(self.last)):
            lines = [
                f"for (int64_t k{index} = 0; k{index} < K{index}; k{index}++) {{",
                *indent(self._position(index, transposed=transposed)),
                *indent(lines),
                "}",
            ]
        return lines

    def _position(self, index: int, *, transposed: bool) -> list[str]:
        a = index
        if transposed:
            return [
                f"const int64_t t{a} = o{a} + P{a} - k{a} * D{a}, i{a} = t{a} / S{a};",
                f"if (t{a} < 0 || t{a} % S{a} != 0 || i{a} >= I{a})",
                "    continue;",
            ]
        return [
            f"const int64_t i{a} = o{a} * S{a} - P{a} + k{a} * D{a};",
            f"if (i{a} < 0 || i{a} >= I{a})",
            "    continue;",
        ]

    def index(self, start: str, letter: str, size: str, *, to: int) -> str:
        """A row-major index: `start` of the outer axes, then axes 0 .. to - 1."""
        text = start
        for a in range(to):
            text = f"({text} * {size}{a} + {letter}{a})"
        return text

    @property
    def range_of_last(self) -> list[str]:
        """`low` .. `high`: the outputs of the piece whose tap kl of the last axis is inside."""
        z = self.last
        return [
            f"const int64_t start = kl * D{z} - P{z};",
            f"const int64_t low = tl_max(left, tl_floordiv(S{z} - 1 - start, S{z}));",
            f"const int64_t high = tl_min(right, tl_floordiv(I{z} - start + S{z} - 1, S{z}));",
        ]


def begin_rows(node: Node, ctx: Context, name: str, rows: PlainRows) -> KernelBuilder:
    k = KernelBuilder(ctx, node, f"{name}{len(rows.axes)}d_{node.output.dtype.value}")
    k.read("x", node.required(0))
    for letter, value in (("w", node.input(1)), ("bias", node.input(2))):
        if value is not None:
            k.read(letter, value)
    k.write("y", node.output)
    rows.declare(k)
    return k
