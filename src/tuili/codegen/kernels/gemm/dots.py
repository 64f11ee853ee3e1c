"""MatMulNBits at `accuracy_level` 4: rows are rounded to 8 bits, and codes multiplied with codes.

A chunk of 32 (or 16) numbers of a row has a scale of its own, the largest magnitude / 127. Products
of a chunk are added up as whole numbers, so they are exact; over the chunks of a row

    y += (sum(code * x) - zero * sum(x)) * (scale * scale of x)

is one chain in f32, in tiles of any height: results do not depend on how many rows there are.

A panel is two vectors of columns. In its vectors of bytes, four neighbours belong to one column and
four steps of k; the bits of a byte to one column of each vector, and for codes of 2 bits to two
groups of four steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.code_dots import CODE_DOTS
from tuili.codegen.kernels.gemm.coded_weights import OWN_SLOTS, CodedWeights, coded_weights
from tuili.codegen.kernels.gemm.matmul import most_rows, read_bias
from tuili.codegen.kernels.gemm.rows import RowLoop, cut_rows, print_tiles
from tuili.codegen.kernels.gemm.tile import Tile
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div, numel

_BYTES_LEVEL = 4  # of `accuracy_level`
_MOST_BITS = 4  # what sixteen 16-bit sums of a chunk can hold
_CHUNKS = (32, 16)  # steps of k: what blocks are cut into
_QUAD = 4
_VECTORS = 2
_PER_ROW = 4  # registers: two sums of a chunk, and what is beside them


def supports(node: Node, ctx: Context) -> bool:
    """Whether 8 bits of x are enough for the model, and the target multiplies bytes."""
    wanted = int(attr(node, "accuracy_level")) == _BYTES_LEVEL and not ctx.exact
    weights = coded_weights(node) if wanted and ctx.target.name in CODE_DOTS else None
    return weights is not None and weights.bits <= _MOST_BITS and _chunk(weights.block) > 0


def _chunk(block: int) -> int:
    return next((chunk for chunk in _CHUNKS if block % chunk == 0), 0)


def emit(node: Node, ctx: Context) -> None:
    """The codes of x, then the product; a grid item is one panel times one block of rows."""
    x, weights = node.required(0), coded_weights(node)
    assert weights is not None  # supports
    lanes, chunk = ctx.target.lanes, _chunk(weights.block)
    total, columns = numel(x.shape[:-1]), _VECTORS * lanes
    tile = Tile(ctx.target.registers // _PER_ROW, _VECTORS)
    cut = cut_rows(total, tile, most_rows(weights.depth))
    panels, chunks = -(-weights.width // columns), -(-weights.depth // chunk)
    codes, factors = _emit_codes(node, ctx, weights, total)
    k = KernelBuilder(ctx, node, f"matmul_dots_{weights.bits}_{weights.depth}x{weights.width}")
    k.support(CODE_DOTS[ctx.target.name])
    k.read("x", codes)
    k.read("factors", factors)
    k.write("y", node.output)
    packed = _Codes(weights, lanes, chunk)
    arrays = packed.arrays()
    for name, array in arrays.items():
        k.weight(name, array)
    bias = read_bias(k, node.input(5), panels * columns)
    epilogue = Epilogue(k, node, OWN_SLOTS)
    k.dims("M N PANELS ROWS CHUNKS", (total, weights.width, panels, cut.block, chunks))
    loop = RowLoop(tile, lanes, cut.heights, weights.width, bias, epilogue, ldb=str(columns))
    cases = {
        rows: "\n".join([*_print_tile(packed, rows), loop.store(rows)]) for rows in cut.heights
    }
    k.body(_body(packed, print_tiles(tile.rows, cases)))
    traffic = numel(x.shape) + numel(node.output.shape) * 4
    k.emit(
        grid=ceil_div(total, cut.block) * panels,
        flops=total * (2 * weights.depth * weights.width),
        bytes=traffic + sum(array.nbytes for array in arrays.values()),
    )


# -- the codes of x ------------------------------------------------------------------------


def _emit_codes(node: Node, ctx: Context, weights: CodedWeights, total: Dim) -> tuple[View, View]:
    """Codes [M, chunks * chunk], zero padded; of every chunk the scale, and the sum of its codes.

    That sum is multiplied with the middle code where this is the zero point of all.
    """
    chunk = _chunk(weights.block)
    chunks = -(-weights.depth // chunk)
    k = KernelBuilder(ctx, node, f"round_rows_{weights.depth}")
    codes = k.temp("codes", DType.I8, total * (chunks * chunk))
    factors = k.temp("factors", DType.F32, total * (2 * chunks))
    k.read("x", node.required(0))
    k.write("codes", codes)
    k.write("factors", factors)
    k.dims("K CHUNK CHUNKS", (weights.depth, chunk, chunks))
    has_zeros = weights.packed_zeros is not None
    k.body(_ROUND.replace("ZERO", "1.0f" if has_zeros else f"{2 ** (weights.bits - 1)}.0f"))
    k.emit(grid=total * chunks, bytes=total * (5 * weights.depth))
    return codes, factors


# What is no number makes the scale, and so the row, no number.
_ROUND = """
for (int64_t item = begin; item < end; item++) {
    const int64_t at = item % CHUNKS * CHUNK, left = K - at;
    const float *const from = x + item / CHUNKS * K + at;
    vf part[CHUNK / V], most = {0}, odd = {0}, sum = {0};
    for (int64_t i = 0; i < CHUNK / V; i++) {
        const int64_t rest = left - i * V;
        part[i] = rest >= V ? v_load(from + i * V) : rest > 0 ? v_loadn(from + i * V, rest) : sum;
        most = v_max(v_abs(part[i]), most);
        odd += part[i] * 0.0f;
    }
    const float top = v_hmax(most);
    const float factor = top > 1e-30f ? 127.0f / top : 0.0f;
    for (int64_t i = 0; i < CHUNK / V; i++) {
        const vf code = v_round(part[i] * factor);
        v_store_i8(codes + item * CHUNK + i * V, code);
        sum += code;
    }
    factors[2 * item] = (top > 1e-30f ? top / 127.0f : 0.0f) + v_sum(odd);
    factors[2 * item + 1] = v_sum(sum) * ZERO;
}
"""

# -- the product ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Codes:
    """How the codes of the weights lie."""

    weights: CodedWeights
    lanes: int
    chunk: int

    @property
    def width(self) -> int:
        """The bits that a code takes."""
        return 2 if self.weights.bits <= 2 else 4

    @property
    def quads(self) -> int:
        """Groups of four steps of k in a vector of bytes."""
        return 8 // self.width // _VECTORS

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return _VECTORS * self.lanes

    @property
    def chunks(self) -> int:
        """Chunks along k."""
        return -(-self.weights.depth // self.chunk)

    def arrays(self) -> dict[str, Array]:
        """What the kernel reads."""
        found = {"w": self._packed(), "scale": self._by_block(self.weights.scales)}
        if self.weights.zeros is not None:
            found["zero"] = self._by_block(self.weights.zeros)
        return found

    def _packed(self) -> Array:
        """[panels][steps][V][4], a byte for each."""
        codes = self.weights.codes
        depth, width = self.chunks * self.chunk - codes.shape[1], -len(codes) % self.columns
        codes = np.pad(codes, ((0, width), (0, depth)))
        split = codes.reshape(-1, _VECTORS, self.lanes, codes.shape[1] // (_QUAD * self.quads),
                              self.quads, _QUAD)  # fmt: skip
        packed = np.zeros((), np.uint8)
        for quad in range(self.quads):
            for v in range(_VECTORS):
                packed = packed | split[:, v, :, :, quad] << np.uint8(self._shift(quad, v))
        return np.ascontiguousarray(packed.transpose(0, 2, 1, 3))

    def _shift(self, quad: int, v: int) -> int:
        return self.width * (_VECTORS * quad + v)

    def _by_block(self, numbers: Array) -> Array:
        """[N, blocks] as [panels][blocks][columns]."""
        padded = np.pad(numbers, ((0, -len(numbers) % self.columns), (0, 0)))
        rows = padded.reshape(-1, self.columns, numbers.shape[1]).transpose(0, 2, 1)
        return np.ascontiguousarray(rows, np.float32)

    def code(self, quad: int, v: int) -> str:
        """C for the codes of four steps of k and a vector of columns, out of the bytes `q`."""
        shift, mask = self._shift(quad, v), 2**self.width - 1
        moved = f"q >> {shift}" if shift else "q"
        return f"({moved}) & {mask * 0x01010101:#x}"


def _body(codes: _Codes, tiles: str) -> str:
    step = codes.chunks * codes.chunk // codes.quads * codes.lanes
    factors = codes.weights.blocks * codes.columns
    zeros = [f"    const float *const zeros = zero + panel * {factors};"]
    return "\n".join(
        [
            "float *const out = y;",
            "const int64_t at = 0;",
            "(void)at;",
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t block = item / PANELS, panel = item % PANELS;",
            "    const int64_t last = tl_min((block + 1) * ROWS, M);",
            f"    const int64_t col = panel * {codes.columns};",
            f"    const uint8_t *const codes = w + panel * {step};",
            f"    const float *const scales = scale + panel * {factors};",
            *(zeros if codes.weights.packed_zeros is not None else []),
            *(f"    {line}" for line in tiles.splitlines()),
            "}",
        ]
    )


def _print_tile(codes: _Codes, rows: int) -> list[str]:
    """C that leaves the sums of so many rows from `row` on in `acc{r}_{v}`."""
    places = [(r, v) for r in range(rows) for v in range(_VECTORS)]
    depth = codes.chunks * codes.chunk
    return [
        f"vf {', '.join(f'acc{r}_{v} = {{0}}' for r, v in places)};",
        *(f"const int8_t *const x{r} = x + (row + {r}) * {depth};" for r in range(rows)),
        *(f"const float *const f{r} = factors + (row + {r}) * (2 * CHUNKS);" for r in range(rows)),
        "const uint8_t *p = codes;",
        "for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {",
        f"    vi {', '.join(f'dot{r}_{v} = {{0}}' for r, v in places)};",
        f"    const int64_t k0 = chunk * {codes.chunk};",
        f"    for (int64_t k = k0; k < k0 + {codes.chunk}; k += {_QUAD * codes.quads}) {{",
        *(f"        {line}" for line in _print_step(codes, rows)),
        "    }",
        *(f"    {line}" for line in _print_chunk(codes, rows)),
        "}",
    ]


def _print_step(codes: _Codes, rows: int) -> list[str]:
    lines = ["const vi q = *(const vi_any *)p;", "p += 4 * V;"]
    for quad in range(codes.quads):
        lines += [f"const vi w{quad}_{v} = {codes.code(quad, v)};" for v in range(_VECTORS)]
        lines += [
            f"d_add(&dot{r}_0, &dot{r}_1, w{quad}_0, w{quad}_1, x{r} + k + {_QUAD * quad});"
            for r in range(rows)
        ]
    return lines


def _print_chunk(codes: _Codes, rows: int) -> list[str]:
    """C that adds the sums of a chunk, scaled."""
    at = f"chunk / {codes.weights.block // codes.chunk} * {codes.columns}"
    has_zeros = codes.weights.packed_zeros is not None
    lines = [f"const vf s{v} = v_load(scales + {at} + {v} * V);" for v in range(_VECTORS)]
    if has_zeros:
        lines += [f"const vf z{v} = v_load(zeros + {at} + {v} * V);" for v in range(_VECTORS)]
    for r in range(rows):
        lines.append(f"const float sx{r} = f{r}[2 * chunk], sum{r} = f{r}[2 * chunk + 1];")
        for v in range(_VECTORS):
            zero = f"z{v} * sum{r}" if has_zeros else f"sum{r}"
            dot = f"v_to_float(d_sum(dot{r}_{v})) - {zero}"
            lines.append(f"acc{r}_{v} += ({dot}) * (s{v} * sx{r});")
    return lines
