"""The text of a convolution as a product: panels of pixels, register tiles of outputs, the store.

A grid item is one panel of pixels of one group of one image. The inputs that its pixels see are
written side by side, `COLS` for each step of k, a chunk of channels at a time; sums over the chunks
before wait in scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernels.gemm.rows import print_tiles
from tuili.codegen.kernels.gemm.tile import Source, Tile, print_tile, split_rows
from tuili.codegen.text import indent
from tuili.tensors import Dim


@dataclass(frozen=True, slots=True)
class Window:
    """One spatial axis: output q reads the padded input at q * stride + each of `taps`.

    Its place in the whole output, of size `out`, is q * step + phase.
    """

    size: Dim  # of the padded input
    count: Dim  # of outputs
    stride: int
    taps: tuple[int, ...]
    out: Dim
    step: int = 1
    phase: int = 0

    @property
    def is_spread(self) -> bool:
        """Whether there is something between its outputs."""
        return self.step > 1


@dataclass(frozen=True, slots=True)
class Fill:
    """How a chunk of channels, from c0 on, is written to `panel`; `before` is for all chunks."""

    before: list[str]
    chunk: list[str]
    bytes: int = 0  # of `tables`, behind everything else in scratch


@dataclass(frozen=True, slots=True)
class ProductText:
    """What the loops are printed from: sizes are C constants N C G GC GM K and, by axis, X Q O."""

    windows: Sequence[Window]
    tile: Tile
    columns: int  # COLS
    rows: int  # GM
    is_chunked: bool
    has_bias: bool
    epilogue: Epilogue
    fill: Fill

    def body(self) -> str:
        """All loops."""
        return "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t first = item % PANELS * COLS, used = tl_min(COLS, PIX - first);",
                "    const int64_t g = item / PANELS % G, n = item / (PANELS * G);",
                "    float *const panel = (float *)scratch;",
                "    float *const kept = panel + CHUNK * TAPS * COLS;",
                "    float *const tables = kept + KEPT * COLS;",
                "    (void)kept, (void)tables;",
                *indent(self._places()),
                *indent(self.fill.before),
                "    for (int64_t c0 = 0; c0 < GC; c0 += CHUNK) {",
                "        const int64_t k0 = c0, c1 = tl_min(c0 + CHUNK, GC);",
                "        const int64_t depth = (c1 - c0) * TAPS, block = 0, ROWS = 0, last = GM;",
                "        (void)k0;",
                *indent(self.fill.chunk, 2),
                *indent(self._tiles(), 2),
                "    }",
                "}",
            ]
        )

    @property
    def is_spread(self) -> bool:
        """Whether the pixels of a panel do not lie side by side in the output."""
        return any(window.is_spread for window in self.windows)

    def _places(self) -> list[str]:
        """`from[p]`: where the window of a pixel begins; `to[p]`: where it goes."""
        rank = len(self.windows)
        lines = ["int64_t rest = tl_min(first + p, PIX - 1);"]
        source = target = ""
        for axis in reversed(range(rank)):
            lines += [f"const int64_t q{axis} = rest % Q{axis};", f"rest /= Q{axis};"]
        for axis, window in enumerate(self.windows):
            begin, place = f"q{axis} * {window.stride}", f"q{axis} * {window.step} + {window.phase}"
            source = f"({source} * X{axis} + {begin})" if source else f"({begin})"
            target = f"({target} * O{axis} + {place})" if target else f"({place})"
        spread = ["int64_t to[COLS];"] if self.is_spread else []
        stores = [f"to[p] = {target};"] if self.is_spread else []
        return [
            "int64_t from[COLS];",
            *spread,
            "for (int64_t p = 0; p < COLS; p++) {",
            *indent([*lines, f"from[p] = {source};", *stores]),
            "}",
        ]

    def _tiles(self) -> list[str]:
        heights = sorted(set(split_rows(self.rows, self.tile.rows)))
        cases = {height: "\n".join(self._case(height)) for height in heights}
        return print_tiles(self.tile.rows, cases).split("\n")

    def _case(self, height: int) -> list[str]:
        sums = "(kept + row * COLS)" if self.is_chunked else ""
        a = "(w + (g * GM + row) * K + c0 * TAPS)"
        source = Source(a, "K", "panel", str(self.columns), "depth", sums=sums)
        names = [[f"acc{r}_{v}" for v in range(self.tile.vectors)] for r in range(height)]
        lines = print_tile(height, self.tile.vectors, source)
        keep = [f"v_store(kept + (row + {r}) * COLS + {v} * V, {name});"
                for r, row in enumerate(names) for v, name in enumerate(row)]  # fmt: skip
        if self.is_chunked:
            return [*lines, "if (c1 < GC) {", *indent(keep), "} else {",
                    *indent(self._finish(names)), "}"]  # fmt: skip
        return [*lines, *self._finish(names)]

    def _finish(self, names: list[list[str]]) -> list[str]:
        """Bias, epilogue and store: in vectors where pixels lie side by side, else one by one."""
        apart = self._one_by_one(names)
        if self.is_spread:
            return apart
        lines = ["if (used == COLS) {"]
        for r, row in enumerate(names):
            m = f"g * GM + row + {r}"
            lines.append(
                f"    const int64_t m{r} = {m}, at{r} = (n * G * GM + m{r}) * PIX + first;"
            )
            for v, name in enumerate(row):
                value = f"{name} + v_set1(bias[m{r}])" if self.has_bias else name
                at = f"at{r} + {v} * V"
                statements, result = self.epilogue.beside(value, at, f"m{r}")
                lines += indent([*statements, f"v_store(y + {at}, {result});"])
        return [*lines, "} else {", *indent(apart), "}"]

    def _one_by_one(self, names: list[list[str]]) -> list[str]:
        lines = [f"float sums[{len(names)}][COLS];"]
        for r, row in enumerate(names):
            lines += [f"v_store(&sums[{r}][{v} * V], {name});" for v, name in enumerate(row)]
        acc = "sums[r][p] + bias[m]" if self.has_bias else "sums[r][p]"
        at = "base + to[p]" if self.is_spread else "base + first + p"
        statements, result = self.epilogue.scalar(acc, at, "m")
        return [
            *lines,
            f"for (int64_t r = 0; r < {len(names)}; r++) {{",
            "    const int64_t m = g * GM + row + r, base = (n * G * GM + m) * OUT;",
            "    for (int64_t p = 0; p < used; p++) {",
            *indent(statements, 2),
            f"        y[{at}] = {result};",
            "    }",
            "}",
        ]


def fill_windows(windows: Sequence[Window], tile: Tile) -> Fill:
    """Vectors of pixels whose windows lie side by side are copied whole, others one by one."""
    before = [
        *(
            f"static const int32_t t{axis}[] = {{{', '.join(map(str, window.taps))}}};"
            for axis, window in enumerate(windows)
        ),
        "int beside[NV];",
        "for (int v = 0; v < NV; v++)",
        "    beside[v] = v * V + V <= used && from[v * V + V - 1] - from[v * V] == V - 1;",
    ]
    place = ""
    for axis in range(len(windows)):
        place = f"({place} * X{axis} + t{axis}[k{axis}])" if place else f"t{axis}[k{axis}]"
    loops = [f"const float *const seen = xc + {place};"]
    for v in range(tile.vectors):
        loops += [
            f"if (beside[{v}])",
            f"    v_store(to_k + {v} * V, v_load(seen + from[{v} * V]));",
            "else",
            "    for (int l = 0; l < V; l++)",
            f"        to_k[{v} * V + l] = seen[from[{v} * V + l]];",
        ]
    loops.append("to_k += COLS;")
    for axis in reversed(range(len(windows))):
        count = len(windows[axis].taps)
        loops = [f"for (int k{axis} = 0; k{axis} < {count}; k{axis}++) {{", *indent(loops), "}"]
    return Fill(before, each_channel(loops))


def each_channel(lines: list[str]) -> list[str]:
    """The lines for every channel of a chunk: `xc` is its plane, `to_k` where its taps go."""
    return [
        "float *to_k = panel;",
        "for (int64_t c = c0; c < c1; c++) {",
        "    const float *const xc = x + ((n * G + g) * GC + c) * PLANE;",
        *indent(lines),
        "}",
    ]
