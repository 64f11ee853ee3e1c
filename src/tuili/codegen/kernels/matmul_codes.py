"""MatMulNBits: rows times weights that stay codes of a few bits until they are multiplied.

A few rows meet a panel in one pass: its codes become numbers in registers, and memory is read at
the speed of the codes. More rows share the numbers: those of a piece of k are written to private
memory that stays in the nearest cache, and the rows pass over them as in `matmul`. Either way
every sum is one chain over the same numbers, so results are the same to the last bit.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.code_panels import HALF, VECTORS, Panels
from tuili.codegen.kernels.coded_weights import OWN_SLOTS, CodedWeights, coded_weights
from tuili.codegen.kernels.gemm_rows import RowCut, RowLoop, cut_rows
from tuili.codegen.kernels.gemm_tile import Tile, usual_tile
from tuili.codegen.kernels.matmul import most_rows, read_bias
from tuili.codegen.targets import Target
from tuili.ir import Node
from tuili.tensors import Array, ceil_div, numel

NEAR_FLOATS = 4 * 1024  # numbers that stay in the first-level cache beside the rows
_SPARE = 6  # registers that a pass of few rows needs beside its sums


def supports(node: Node, ctx: Context) -> bool:
    """Whether x is f32, and the weights are known, whole, and in the order of k."""
    return coded_weights(node) is not None


def emit(node: Node, ctx: Context) -> None:
    """The product; a grid item is one panel times one block of rows."""
    x, weights = node.required(0), coded_weights(node)
    assert weights is not None  # supports
    depth, width = weights.depth, weights.width
    total = numel(x.shape[:-1])
    panels = Panels(weights.bits, ctx.target.lanes, weights.block, weights.zeros is not None)
    count = -(-width // panels.columns)
    tile = usual_tile(ctx.target, known_stride=True, columns=width)
    assert tile.vectors == HALF
    cut = cut_rows(total, tile, most_rows(depth))
    k = KernelBuilder(ctx, node, f"matmul_codes_{weights.bits}_{depth}x{width}")
    k.read("x", x)
    k.write("y", node.output)
    arrays = _arrays(weights, panels)
    for name, array in arrays.items():
        k.weight(name, array)
    bias = read_bias(k, node.input(5), count * panels.columns)
    epilogue = Epilogue(k, node, OWN_SLOTS)
    k.dims("M K N PANELS ROWS", (total, depth, width, count, cut.block))
    near = _near_depth(depth, HALF * panels.lanes)
    loop = RowLoop(
        tile,
        panels.lanes,
        cut.heights,
        width,
        bias,
        epilogue,
        ldb=str(HALF * panels.lanes),
        depth=near,
    )
    printer = _Printer(panels, loop, _few(ctx.target, cut), weights.blocks)
    if printer.shares:
        k.support(panels.print_halves())
        sums = cut.block if near else 0
        k.scratch((sums + (near or depth)) * HALF * panels.lanes * 4)
    k.body(printer.body())
    traffic = (numel(x.shape) + numel(node.output.shape)) * 4
    traffic += sum(array.nbytes for array in arrays.values())
    k.emit(
        grid=ceil_div(total, cut.block) * count, flops=total * (2 * depth * width), bytes=traffic
    )


def _arrays(weights: CodedWeights, panels: Panels) -> dict[str, Array]:
    """What a kernel reads."""
    arrays = {"w": panels.pack(weights.codes), "scale": panels.pack_blocks(weights.scales)}
    if weights.zeros is not None:
        arrays["zero"] = panels.pack_blocks(weights.zeros * weights.scales)
    return arrays


def _near_depth(depth: int, columns: int) -> int:
    """How many steps of k stay near together, in equal pieces; 0: all."""
    most = NEAR_FLOATS // columns
    return 0 if depth <= most else -(-depth // -(-depth // most))


@dataclass(frozen=True, slots=True)
class _Few:
    """Numbers of rows in a block that meet a panel in one pass, and whether blocks have others."""

    most: int
    heights: tuple[int, ...]
    are_all: bool


def _few(target: Target, cut: RowCut) -> _Few:
    most = (target.registers - _SPARE) // VECTORS
    if not isinstance(cut.total, int):
        return _Few(most, tuple(range(1, most + 1)), are_all=False)
    blocks = {min(cut.block, cut.total), cut.total % cut.block} - {0}
    heights = tuple(sorted(rows for rows in blocks if rows <= most))
    return _Few(most, heights, are_all=len(heights) == len(blocks))


@dataclass(frozen=True, slots=True)
class _Printer:
    """Prints the loop over items: `loop` for the rows that share numbers, and the few rows."""

    panels: Panels
    loop: RowLoop
    few: _Few
    blocks: int

    @property
    def shares(self) -> bool:
        """Whether rows share numbers in private memory."""
        return not self.few.are_all

    def body(self) -> str:
        few, near = self._few_rows(), self._near_rows()
        if self.few.are_all:
            ways = few
        elif not self.few.heights:
            ways = near
        else:
            check = f"if (last - block * ROWS <= {self.few.most}) {{"
            ways = [check, *_indent(few), "} else {", *_indent(near), "}"]
        return "\n".join(
            [
                "const float *const a = x;",
                "float *const out = y;",
                "const int64_t at = 0;",
                "(void)at;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t block = item / PANELS, panel = item % PANELS;",
                "    const int64_t last = tl_min((block + 1) * ROWS, M);",
                f"    const uint8_t *const codes = w + panel * K * {self.panels.bytes};",
                *(f"    const float *const {line}" for line in self._factors()),
                *_indent(ways),
                "}",
            ]
        )

    def _factors(self) -> list[str]:
        step = self.blocks * self.panels.columns
        zeros = [f"zeros = zero + panel * {step};"] if self.panels.has_zeros else []
        return [f"scales = scale + panel * {step};", *zeros]

    def _near_rows(self) -> list[str]:
        """Halves of the panel one after the other."""
        columns, sums = self.loop.columns, "ROWS" if self.loop.depth else "0"
        args = f"codes, scales{', zeros' if self.panels.has_zeros else ''}, k0, k0 + DEPTH, columns"
        fill = [
            f"float *const columns = (float *)scratch + {sums} * {columns};",
            f"(half ? tl_numbers_1 : tl_numbers_0)({args});",
        ]
        return [
            "for (int64_t half = 0; half < 2; half++) {",
            f"    const int64_t col = panel * {self.panels.columns} + half * {columns};",
            "    if (col >= N)",
            "        break;",
            *_indent(replace(self.loop, fill="\n".join(fill)).print().splitlines()),
            "}",
        ]

    def _few_rows(self) -> list[str]:
        """The whole panel at once."""
        wide = replace(self.loop, tile=Tile(self.few.most, VECTORS))
        lines = [
            f"const int64_t row = block * ROWS, col = panel * {self.panels.columns}, stop = K;",
            "int64_t k = 0;",
            "switch (last - row) {",
        ]
        for rows in self.few.heights:
            store = wide.store(rows).splitlines()
            lines += [f"case {rows}: {{", *_indent([*self._pass(rows), *store, "break;"]), "}"]
        return [*lines, "}"]

    def _pass(self, rows: int) -> list[str]:
        sums = [f"acc{r}_{v} = {{0}}" for r in range(rows) for v in range(VECTORS)]
        each: list[str] = []
        for r in range(rows):
            each.append(f"const vf x{r} = v_set1(a{r}[k]);")
            each += [f"acc{r}_{v} += x{r} * w{v};" for v in range(VECTORS)]
        return [
            f"vf {', '.join(sums)};",
            *(f"const float *const a{r} = a + (row + {r}) * K;" for r in range(rows)),
            *self.panels.print_steps(range(VECTORS), each),
        ]


def _indent(lines: list[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").splitlines()
