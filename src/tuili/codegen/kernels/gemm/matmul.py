"""MatMul: constant weights packed into column panels, or two activations, batched.

y = x [..., M, K] @ w [..., K, N] (+ bias [N]), then the epilogue. Constant weights are packed at
compile time to [N / NR][K][NR] (NR columns of the register tile, zero padded); a panel stays in the
caches while the rows of x pass by. Activations are read in place.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace

import numpy as np

from tuili.codegen.doubles import DOUBLES, half_lanes, in_doubles
from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.rows import RowCut, RowLoop, cut_rows
from tuili.codegen.kernels.gemm.tile import Tile, rank_tiles
from tuili.codegen.targets import Target
from tuili.ir import Node, Value
from tuili.lower.choice import dims_text
from tuili.tensors import Array, Dim, DType, ceil_div, numel

OWN_SLOTS = 3  # x, w, bias
ROW_BLOCK = 112  # rows per grid item: a multiple of every tile height in use
PREFETCH_BYTES = 512 * 1024  # of a panel, in caches of 1 MB and more
FEW_ROWS = 3  # stream their panel anyway
PREFETCH_DEPTH = 512  # two longer panels and their rows of x overflow the second-level cache
L2_FLOATS = 96 * 1024  # rows of x that stay in the second-level cache
FAR = 256  # floats from row to row of a panel that is worth a copy


def is_plain_f32(value: Value) -> bool:
    """Whether a value is a row-major tensor of f32."""
    return value.dtype is DType.F32 and not value.layout


def supports_packed(node: Node, ctx: Context) -> bool:
    """Whether the second operand is a constant f32 matrix."""
    w = node.required(1)
    return supports_batched(node, ctx) and w.is_constant and len(w.shape) == 2


def supports_batched(node: Node, ctx: Context) -> bool:
    """Whether both operands are f32 tensors in plain layout."""
    return all(is_plain_f32(value) for value in (node.required(0), node.required(1), node.output))


def supports_doubles(node: Node, ctx: Context) -> bool:
    """Whether both operands are f64 tensors in plain layout, and nothing is fused."""
    values = (node.required(0), node.required(1), node.output)
    plain = all(value.dtype is DType.F64 and not value.layout for value in values)
    return plain and "epilogue" not in node.attrs and node.input(2) is None


def pack_columns(matrix: Array, columns: int) -> Array:
    """[K, N] as [ceil(N / columns)][K][columns], zero padded."""
    depth, width = matrix.shape
    panels = -(-width // columns)
    padded = np.zeros((depth, panels * columns), np.float32)
    padded[:, :width] = matrix
    return np.ascontiguousarray(padded.reshape(depth, panels, columns).transpose(1, 0, 2))


def emit_packed(node: Node, ctx: Context) -> None:
    """x @ constant weights; a grid item is one panel times one block of rows."""
    x, weights = node.required(0), node.required(1).constant
    assert weights is not None  # supports_packed
    depth, width = weights.shape
    total = numel(x.shape[:-1])
    plan = _plan_packed(node, ctx, total, depth, width)
    tile, cut, near = plan.tile, plan.cut, plan.near
    columns = tile.columns(ctx.target.lanes)
    panels = -(-width // columns)
    k = KernelBuilder(ctx, node, _name(total, depth, width))
    k.read("x", x)
    k.write("y", node.output)
    k.weight("w", pack_columns(weights, columns))
    bias = read_bias(k, node.input(2), panels * columns)
    epilogue = Epilogue(k, node, OWN_SLOTS)
    k.dims("M K N PANELS ROWS", (total, depth, width, panels, cut.block))
    loop = RowLoop(
        tile,
        ctx.target.lanes,
        cut.heights,
        width,
        bias,
        epilogue,
        ldb=str(columns),
        prefetch=_may_prefetch(ctx.target, plan, near or depth),
        depth=near,
    )
    if near:
        k.scratch(cut.block * columns * 4)
    k.body(_packed_body(loop))
    traffic = (numel(x.shape) + weights.size + numel(node.output.shape)) * 4
    k.emit(
        grid=ceil_div(total, cut.block) * panels, flops=total * (2 * depth * width), bytes=traffic
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The register tile, the blocks of rows, and how many steps of k stay near together."""

    tile: Tile
    cut: RowCut
    near: int  # 0: all


def _plan_packed(node: Node, ctx: Context, total: Dim, depth: int, width: int) -> _Plan:
    """In the tiles that fit; in the first also with all of k at once, where pieces are cut."""
    most = most_rows(depth)
    tiles = rank_tiles(ctx.target, stride_bytes=4 * depth, columns=width, rows=total)
    plans: dict[str, _Plan] = {}
    for tile in tiles:
        cut = cut_rows(total, tile, most)
        room = ctx.target.near_bytes // (4 * tile.columns(ctx.target.lanes))
        near = _near_depth(room, depth, cut.block > 2 * tile.rows)
        plans[f"tile {tile}"] = _Plan(tile, cut, near)
    first = plans[f"tile {tiles[0]}"]
    if first.near:
        plans[f"tile {tiles[0]}, whole depth"] = replace(first, near=0)
    problem = f"MatMul {dims_text(total, depth)} by packed {dims_text(depth, width)}"
    return ctx.choose(node, problem, plans)


def _may_prefetch(target: Target, plan: _Plan, depth: int) -> bool:
    """Whether there is room for the next panel, and time to ask for it; AVX-512 has both sooner."""
    rows, columns = plan.cut.block, plan.tile.columns(target.lanes)
    if target.lanes == 16 and depth * columns * 4 <= PREFETCH_BYTES:
        return rows > FEW_ROWS
    return rows > 2 * plan.tile.rows and depth <= PREFETCH_DEPTH


def most_rows(depth: int) -> int:
    """Rows of a grid item, at most."""
    return max(ROW_BLOCK, L2_FLOATS // max(depth, 1) // ROW_BLOCK * ROW_BLOCK)


def _near_depth(most: int, depth: int, is_shared: bool) -> int:
    """How many steps of k stay in the nearest cache together, in equal pieces; 0: all."""
    if not is_shared or most == 0 or depth <= 2 * most:
        return 0
    return -(-depth // -(-depth // most))


def _name(*dims: Dim) -> str:
    return "matmul_" + "x".join(str(dim) for dim in dims if isinstance(dim, int))


def read_bias(k: KernelBuilder, bias: Value | None, padded_width: int) -> bool:
    """Whether there is a bias, which the kernel then reads; a constant one is zero padded."""
    if bias is None:
        return False
    if bias.constant is None:
        k.read("bias", bias)
        return True
    padded = np.zeros(padded_width, np.float32)
    padded[: bias.constant.size] = bias.constant.reshape(-1)
    k.weight("bias", padded)
    return True


def _packed_body(loop: RowLoop) -> str:
    columns = loop.columns
    return "\n".join(
        [
            "const float *const a = x;",
            "float *const out = y;",
            "const int64_t at = 0;",
            "(void)at;",
            "for (int64_t item = begin; item < end; item++) {",
            f"    const int64_t block = item / PANELS, col = item % PANELS * {columns};",
            "    const float *const panel = w + col * K;",
            "    const int64_t last = tl_min((block + 1) * ROWS, M);",
            textwrap.indent(loop.print(), "    "),
            "}",
        ]
    )


# -- two activations ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operands:
    """Both operands as [batch..., rows, columns], batch ranks equal."""

    batch: tuple[Dim, ...]
    x_batch: tuple[Dim, ...]
    w_batch: tuple[Dim, ...]
    m: Dim
    k: Dim
    n: Dim


def operands(node: Node) -> Operands:
    """Both operands of a MatMul node."""
    x, w = node.required(0).shape, node.required(1).shape
    x_matrix = x if len(x) > 1 else (1, *x)
    w_matrix = w if len(w) > 1 else (*w, 1)
    rank = max(len(x_matrix), len(w_matrix)) - 2
    x_batch = (1,) * (rank - len(x_matrix) + 2) + tuple(x_matrix[:-2])
    w_batch = (1,) * (rank - len(w_matrix) + 2) + tuple(w_matrix[:-2])
    # K may be spelt differently on both sides; it is the same number at run time.
    depth = w_matrix[-2] if isinstance(w_matrix[-2], int) else x_matrix[-1]
    return Operands(
        tuple(node.output.shape[:rank]), x_batch, w_batch, x_matrix[-2], depth, w_matrix[-1]
    )


def emit_batched(node: Node, ctx: Context) -> None:
    """x @ w, both activations; a grid item is one block of rows of one matrix of the batch."""
    x, w = node.required(0), node.required(1)
    is_double, size = w.dtype is DType.F64, w.dtype.itemsize
    target = half_lanes(ctx.target) if is_double else ctx.target
    shape = operands(node)
    width = shape.n if isinstance(shape.n, int) else None
    tile = _tile_batched(node, ctx, shape, target)
    columns = tile.columns(target.lanes)
    cut = cut_rows(shape.m, tile, ROW_BLOCK)
    k = KernelBuilder(ctx, node, _name(shape.m, shape.k, shape.n) + ("_f64" if is_double else ""))
    k.read("x", x)
    k.read("w", w)
    k.write("y", node.output)
    bias = node.input(2)
    if bias is not None:
        k.read("bias", bias)
    epilogue = Epilogue(k, node, OWN_SLOTS)
    blocks = ceil_div(shape.m, cut.block)
    k.dims("M K N ROWS BLOCKS", (shape.m, shape.k, shape.n, cut.block, blocks))
    offsets = batch_offsets(k, shape)
    loop = RowLoop(tile, target.lanes, cut.heights, width, bias is not None, epilogue, ldb="ldb")
    copy = _copy_panel(columns, _whens(shape, columns, 4 * tile.rows))
    if copy:
        k.scratch(shape.k * (columns * size))
    body = _batched_body(loop, offsets, copy)
    k.body(in_doubles(body) if is_double else body)
    k.support(DOUBLES if is_double else "")
    batches = numel(shape.batch)
    traffic = (numel(x.shape) + numel(w.shape) + numel(node.output.shape)) * size
    k.emit(grid=batches * blocks, flops=batches * shape.m * shape.k * shape.n * 2, bytes=traffic)


def _tile_batched(node: Node, ctx: Context, shape: Operands, target: Target) -> Tile:
    width = shape.n if isinstance(shape.n, int) else None
    stride_bytes = shape.k * node.output.dtype.itemsize
    tiles = rank_tiles(target, stride_bytes=stride_bytes, columns=width, rows=shape.m)
    problem = f"MatMul {dims_text(numel(shape.batch), shape.m, shape.k)} by {dims_text(shape.n)}"
    problem += " in f64" if node.output.dtype is DType.F64 else ""
    return ctx.choose(node, problem, {f"tile {tile}": tile for tile in tiles})


def batch_offsets(k: KernelBuilder, shape: Operands) -> list[str]:
    """C that finds both matrices of batch item `batch`; a broadcast dim has stride 0."""
    lines = ["int64_t rest = batch, x_at = 0, w_at = 0, x_step = M * K, w_step = K * N;"]
    for axis in reversed(range(len(shape.batch))):
        dims = (shape.batch[axis], shape.x_batch[axis], shape.w_batch[axis])
        k.dims(f"B{axis} XB{axis} WB{axis}", dims)
        lines += [
            f"x_at += XB{axis} == 1 ? 0 : rest % B{axis} * x_step, x_step *= XB{axis};",
            f"w_at += WB{axis} == 1 ? 0 : rest % B{axis} * w_step, w_step *= WB{axis};",
            f"rest /= B{axis};",
        ]
    return [*lines, "(void)rest, (void)x_step, (void)w_step;"]


def _batched_body(loop: RowLoop, offsets: list[str], copy: list[str]) -> str:
    return "\n".join(
        [
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t batch = item / BLOCKS, block = item % BLOCKS;",
            *(f"    {line}" for line in offsets),
            "    const float *const a = x + x_at;",
            "    const int64_t at = batch * M * N;",
            "    float *const out = y + at;",
            "    const int64_t last = tl_min((block + 1) * ROWS, M);",
            f"    for (int64_t col = 0; col < N; col += {loop.columns}) {{",
            "        const float *panel = w + w_at + col;",
            "        int64_t ldb = N;",
            *(f"        {line}" for line in copy),
            textwrap.indent(loop.print(), "        "),
            "    }",
            "}",
        ]
    )


def _whens(shape: Operands, columns: int, many: int) -> list[str]:
    """When a panel is copied: the last one that is not whole; or where `many` rows read it.

    Rows of a panel that lie far apart share few sets of the caches, and a page each.
    """
    whens: list[str] = []
    if not isinstance(shape.n, int) or shape.n % columns:
        whens.append(f"col + {columns} > N")
    wide = isinstance(shape.n, int) and shape.n >= FAR
    tall = isinstance(shape.m, int) and shape.m >= many
    if (wide or not isinstance(shape.n, int)) and (tall or not isinstance(shape.m, int)):
        far = [] if wide else [f"N >= {FAR}"]
        whens.append(" && ".join([*far, f"last - block * ROWS >= {many}"]))
    return whens


def _copy_panel(columns: int, whens: list[str]) -> list[str]:
    if not whens:
        return []
    when = whens[0] if len(whens) == 1 else " || ".join(f"({each})" for each in whens)
    return [
        f"if ({when}) {{",
        "    float *const near = (float *)scratch;",
        f"    const int64_t used = tl_min({columns}, N - col);",
        f"    if (used == {columns}) {{",
        "        for (int64_t k = 0; k < K; k++)",
        f"            for (int64_t c = 0; c < {columns}; c += V)",
        f"                v_store(near + k * {columns} + c, v_load(panel + k * N + c));",
        "    } else {  /* zero padded */",
        "        for (int64_t k = 0; k < K; k++)",
        f"            for (int64_t c = 0; c < {columns}; c++)",
        f"                near[k * {columns} + c] = c < used ? panel[k * N + c] : 0.0f;",
        "    }",
        f"    panel = near, ldb = {columns};",
        "}",
    ]
