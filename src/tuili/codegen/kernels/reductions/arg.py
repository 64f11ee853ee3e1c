"""ArgMax, ArgMin: the place of the extreme along one axis; a NaN counts as the extreme."""

from __future__ import annotations

from tuili.codegen.doubles import DOUBLES, in_doubles
from tuili.codegen.element_types import loaded, register_type
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.codegen.kernels.reductions.search import BESIDE, LINE, SIDE, split_at
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType, ceil_div, numel

BLOCK = 1024  # elements whose extreme is found in vectors
PIECE = 32  # elements that are compared with it side by side
_BY_BLOCKS = frozenset(
    {DType.F32, DType.F64} | {kind for kind in DType if kind.is_int and kind.bits >= 8}
)


def emit_arg(node: Node, ctx: Context) -> None:
    """The place of the extreme; a NaN counts as the extreme, as NumPy has it."""
    x, y = node.required(0), node.output
    axis = int(attr(node, "axis")) % max(len(x.shape), 1)
    outer, length, inner = split_at(x.shape, axis) if x.shape else (1, 1, 1)
    if 0 in y.shape:
        return
    last = bool(attr(node, "select_last_index"))
    sign = ">" if node.op == "ArgMax" else "<"
    wins = f"e {sign}{'=' if last else ''} best"
    if x.dtype.is_float:
        wins = f"{wins} || (e != e && {'1' if last else 'best == best'})"
        if last:
            wins = f"({wins}) && !(best != best && e == e)"
    k = KernelBuilder(ctx, node, f"{node.op.lower()}_{x.dtype.value}")
    k.read("x", x)
    k.write("y", y)
    k.dims("LENGTH INNER", (length, inner))
    if inner != 1:
        k.body(_args_beside(register_type(x.dtype), x.dtype, wins))
        k.emit(
            grid=outer * ceil_div(inner, SIDE), flops=numel(x.shape) * 2, bytes=size_of(x.tensor)
        )
        return
    if x.dtype in _BY_BLOCKS and not (isinstance(length, int) and length < PIECE):
        k.dim("BLOCK", BLOCK)
        k.support(_extreme(node.op, x.dtype))
        k.body(_by_blocks(x.dtype, wins, is_last=last))
    else:
        k.body(_one_by_one(x.dtype, wins))
    k.emit(grid=outer, flops=numel(x.shape) * 2, bytes=size_of(x.tensor))


def _one_by_one(dtype: DType, wins: str) -> str:
    kind = register_type(dtype)
    return f"""
for (int64_t item = begin; item < end; item++) {{
    {LINE}
    {kind} best = {loaded(dtype, "x[at]")};
    int64_t place = 0;
    for (int64_t i = 1; i < LENGTH; i++) {{
        const {kind} e = {loaded(dtype, "x[at + i * INNER]")};
        if ({wins}) {{
            best = e;
            place = i;
        }}
    }}
    y[item] = place;
}}"""


def _extreme(op: str, dtype: DType) -> str:
    """C of the extreme of n elements from p on: `tl_extreme(p, n)`."""
    name, sign = ("max", ">") if op == "ArgMax" else ("min", "<")
    if dtype.is_float:
        rows = row_support(name).replace(f"tl_row_{name}", "tl_extreme")
        return rows if dtype is DType.F32 else f"{DOUBLES}\n{in_doubles(rows)}"
    return f"""
static inline {dtype.c} tl_extreme(const {dtype.c} *p, int64_t n)
{{
    {dtype.c} best = p[0];
    for (int64_t i = 1; i < n; i++)
        best = p[i] {sign} best ? p[i] : best;
    return best;
}}"""


def _by_blocks(dtype: DType, wins: str, *, is_last: bool) -> str:
    """The extreme of each block, in vectors; then the place is looked for in the block that won."""
    same = "line[{0}] == best"
    if dtype.is_float:
        same = f"({same}) | ((line[{{0}}] != line[{{0}}]) & (best != best))"
    return f"""
for (int64_t item = begin; item < end; item++) {{
    const {dtype.c} *const line = x + item * LENGTH;
    {dtype.c} best = tl_extreme(line, tl_min(BLOCK, LENGTH));
    int64_t block = 0;
    for (int64_t start = BLOCK; start < LENGTH; start += BLOCK) {{
        const {dtype.c} e = tl_extreme(line + start, tl_min(BLOCK, LENGTH - start));
        if ({wins}) {{
            best = e;
            block = start;
        }}
    }}
{(_FROM_BACK if is_last else _FROM_FRONT).format(PIECE, same.format("i + l"), same.format("i"))}
    y[item] = i;
}}"""


_FROM_FRONT = """
    const int64_t last = tl_min(block + BLOCK, LENGTH);
    int64_t i = block;
    for (int found = 0; i + {0} <= last; i += {0}) {{
        for (int64_t l = 0; l < {0}; l++)
            found |= {1};
        if (found)
            break;
    }}
    while (i + 1 < last && !({2}))
        i++;"""

_FROM_BACK = """
    int64_t i = tl_min(block + BLOCK, LENGTH);
    for (int found = 0; i - {0} >= block; i -= {0}) {{
        for (int64_t l = -{0}; l < 0; l++)
            found |= {1};
        if (found)
            break;
    }}
    i--;
    while (i > block && !({2}))
        i--;"""


def _args_beside(kind: str, dtype: DType, wins: str) -> str:
    return f"""
for (int64_t item = begin; item < end; item++) {{
    {BESIDE}
    {kind} bests[{SIDE}];
    int64_t places[{SIDE}];
    for (int64_t c = 0; c < count; c++)
        bests[c] = {loaded(dtype, "x[at + c]")}, places[c] = 0;
    for (int64_t i = 1; i < LENGTH; i++)
        for (int64_t c = 0; c < count; c++) {{
            const {kind} e = {loaded(dtype, "x[at + i * INNER + c]")}, best = bests[c];
            const int win = {wins};
            bests[c] = win ? e : best;
            places[c] = win ? i : places[c];
        }}
    for (int64_t c = 0; c < count; c++)
        y[item / pieces * INNER + first + c] = places[c];
}}"""
