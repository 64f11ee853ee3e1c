"""Norms along one axis, one element at a time: LpNormalization, Hardmax, LRN."""

from __future__ import annotations

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import numel


def supports(node: Node, ctx: Context) -> bool:
    """Row-major floats."""
    x = node.required(0)
    return is_native(x.dtype) and x.dtype.is_float and not x.layout


def _axis(node: Node) -> int:
    if node.op == "LRN":
        return 1
    return int(attr(node, "axis")) % max(len(node.output.shape), 1)


_LINES = {
    "LpNormalization": """
    REAL total = 0;
    for (int64_t i = 0; i < LENGTH; i++) {
        const REAL e = LOAD(i);
        total += POWER;
    }
    const REAL size = ROOT;
    for (int64_t i = 0; i < LENGTH; i++)
        STORE(i, size == 0 ? 0 : LOAD(i) / size);
""",
    "Hardmax": """
    int64_t place = 0;
    for (int64_t i = 1; i < LENGTH; i++)
        if (LOAD(i) > LOAD(place))
            place = i;
    for (int64_t i = 0; i < LENGTH; i++)
        STORE(i, i == place);
""",
    "LRN": """
    for (int64_t i = 0; i < LENGTH; i++) {
        const int64_t first = tl_max(i - BEFORE, 0), last = tl_min(i + AFTER, LENGTH - 1);
        REAL total = 0;
        for (int64_t j = first; j <= last; j++)
            total += LOAD(j) * LOAD(j);
        STORE(i, LOAD(i) / pow(BIAS + ALPHA * total, BETA));
    }
""",
}


def emit(node: Node, ctx: Context) -> None:
    """A grid item is one line along the axis."""
    x, y = node.required(0), node.output
    if 0 in y.shape:
        return
    shape = x.shape or (1,)
    axis = _axis(node)
    outer, inner = numel(shape[:axis]), numel(shape[axis + 1 :])
    k = KernelBuilder(ctx, node, f"{node.op.lower()}_{x.dtype.value}")
    k.read("x", x)
    k.write("y", y)
    k.dims("LENGTH INNER", (shape[axis], inner))
    k.support(_accessors(node))
    head = [
        "for (int64_t item = begin; item < end; item++) {",
        "    const int64_t at = item / INNER * LENGTH * INNER + item % INNER;",
    ]
    text = _LINES[node.op].strip("\n")
    for word, value in _words(node).items():
        text = text.replace(word, value)
    k.body("\n".join([*head, text, "}"]))
    k.emit(grid=outer * inner, flops=numel(x.shape) * 20, bytes=size_of(x.tensor) * 2)


def _accessors(node: Node) -> str:
    dtype = node.output.dtype
    store = stored(dtype, f"({register_type(dtype)})(value)")
    return "\n".join(
        [
            f"#define TL_LOAD(i) ({loaded(dtype, 'x[at + (i) * INNER]')})",
            f"#define TL_STORE(i, value) y[at + (i) * INNER] = {store}",
        ]
    )


def _words(node: Node) -> dict[str, str]:
    words = {"LOAD(": "TL_LOAD(", "STORE(": "TL_STORE("}
    words["REAL"] = register_type(node.output.dtype)
    if node.op == "LpNormalization":
        first = int(attr(node, "p")) == 1
        words |= {
            "POWER": "fabs(e)" if first else "e * e",
            "ROOT": "total" if first else "sqrt(total)",
        }
    if node.op == "LRN":
        size = int(attr(node, "size"))
        words |= {"BEFORE": str((size - 1) // 2), "AFTER": str(size // 2)}
        words |= {name.upper(): repr(float(attr(node, name))) for name in ("bias", "beta")}
        words["ALPHA"] = repr(float(attr(node, "alpha")) / size)
    return words
