"""TreeScores: decision trees, walked eight at a time.

A walk is a chain of loads, each of which waits for the one before; eight walks side by side fill
the time that one of them waits. Rows are taken in blocks, so that the trees of a group stay in the
nearest cache for all of them. What a leaf gives lies in one place wherever all leaves give as much.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.ml.forest import Forest, forest
from tuili.codegen.kernels.ml.votes import Votes, scores
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Array, DType, ceil_div

LANES = 8
ROWS = 32
_GUESSED_DEPTH = 8
_STARTS = {"MIN": "INFINITY", "MAX": "-INFINITY"}


def supports(node: Node, ctx: Context) -> bool:
    """Known trees over rows of f32 or f64."""
    known = all(value is not None and value.is_constant for value in node.inputs[1:])
    return known and node.required(0).dtype in (DType.F32, DType.F64)


def emit(node: Node, ctx: Context) -> None:
    """One grid item is a block of rows."""
    x, y = node.required(0), node.output
    splits, nodes, roots, starts, targets, weights = (_constant(node, i) for i in range(1, 7))
    trees, votes = forest(splits, nodes, roots), Votes(starts, targets, weights)
    real, how = x.dtype.c, str(attr(node, "how"))
    k = KernelBuilder(ctx, node, f"trees_{x.dtype.value}")
    k.support(_node(trees, real))
    k.read("x", x)
    k.write("y", y)
    k.read("packed", View(ctx.add_weight(f"{y.name}.nodes", _packed(trees))))
    k.weight("roots", trees.roots.astype(np.int32))
    ranked = len(node.outputs) > 1
    given = scores(k, trees, votes, how, ranked=ranked)
    if ranked:
        k.write("ranks", node.outputs[1])
    k.dims("N WIDTH", x.shape)
    k.dims("TREES TARGETS", (len(roots), int(attr(node, "num_targets"))))
    body = _body(how, trees, given, real, ranked=ranked)
    k.body("\n".join(line for line in body.split("\n") if line.strip()))
    rows, count = x.shape[0], len(roots)
    flops = rows * count * _GUESSED_DEPTH * 4
    size = size_of(x.tensor) + len(trees.splits) * _layout(trees).itemsize
    k.emit(grid=ceil_div(rows, ROWS), flops=flops, bytes=size)


def _constant(node: Node, index: int) -> Array:
    array = node.required(index).constant
    assert array is not None
    return array


# -- nodes --------------------------------------------------------------------------------------


def _layout(trees: Forest) -> np.dtype[np.void]:
    """The fields of a node; one load brings all of them."""
    accept = [("accept", "i4")] if "accept" in trees.question else []
    children = ("next", "i4") if trees.is_paired else ("next", "i4", (2,))
    fields = [("split", trees.splits.dtype), ("feature", "i4"), children, *accept]
    return np.dtype(fields, align=True)


def _packed(trees: Forest) -> Array:
    """The nodes as C sees them."""
    packed = np.zeros(len(trees.splits), _layout(trees))
    packed["split"], packed["feature"] = trees.splits, trees.features
    packed["next"] = trees.next[:, 0] if trees.is_paired else trees.next
    if "accept" in (packed.dtype.names or ()):
        packed["accept"] = trees.accept
    return np.frombuffer(packed.tobytes(), np.uint8)


def _node(trees: Forest, real: str) -> str:
    follows = "next;          /* on false; on true the one behind it; a leaf leads to itself */"
    either = "next[2];       /* on false, on true; a leaf leads to itself */"
    accept = "    int32_t accept;        /* which outcomes of the comparison are true */\n"
    return (
        f"typedef struct tl_tree_node {{\n    {real} split;\n    int32_t feature;\n"
        f"    int32_t {follows if trees.is_paired else either}\n"
        f"{accept if 'accept' in trees.question else ''}}} tl_tree_node;\n"
    )


# -- the walk -----------------------------------------------------------------------------------


_NAN = """\
        odd[row - first] = 0;
        for (int64_t f = 0; f < WIDTH; f++)
            odd[row - first] |= x[row * WIDTH + f] != x[row * WIDTH + f];"""


def _body(how: str, trees: Forest, given: str, real: str, *, ranked: bool) -> str:
    walk, looks = _walks(trees, real), _looks_for_nan(trees)
    voted = f"{real} *voted = ranks + row * TARGETS;" if ranked else ""
    gifts = "\n".join(indent(given.split("\n"), 4))
    return f"""
const tl_tree_node *const nodes = (const tl_tree_node *)packed;
for (int64_t block = begin; block < end; block++) {{
    const int64_t first = block * {ROWS}, last = first + {ROWS} < N ? first + {ROWS} : N;
    {f"char odd[{ROWS}];    /* rows with a NaN */" if looks else ""}
    for (int64_t row = first; row < last; row++) {{
        {real} *to = y + row * TARGETS;
        {voted}
        for (int64_t t = 0; t < TARGETS; t++) {{
            to[t] = {_STARTS.get(how, "0")};
            {"voted[t] = 0;" if ranked else ""}
        }}
{_NAN if looks else ""}
    }}
    for (int64_t tree = 0; tree < TREES; tree += {LANES}) {{
        const int64_t lanes = TREES - tree < {LANES} ? TREES - tree : {LANES};
        for (int64_t row = first; row < last; row++) {{
{walk}
            {real} *to = y + row * TARGETS;
            {voted}
            for (int64_t l = 0; l < lanes; l++) {{
                const int32_t at = reached[l];
{gifts}
            }}
        }}
    }}
    for (int64_t row = first; row < last; row++) {{
        {real} *to = y + row * TARGETS;
        {voted}
        for (int64_t t = 0; t < TARGETS; t++) {{
            const {real} score = to[t]{f" / ({real})TREES" if how == "AVERAGE" else ""};
            to[t] = score - score == 0 ? score : 0;
            {"voted[t] = voted[t] != 0 ? to[t] : -INFINITY;" if ranked else ""}
        }}
    }}
}}"""


def _walks(trees: Forest, real: str) -> str:
    """`reached`: the leaves of a row in some trees, which are walked side by side."""
    question, sure = trees.question, trees.sure_question
    if not _looks_for_nan(trees):
        walk = _walk(trees, real, question)
    else:
        walk = [
            "if (odd[row - first]) {",
            *indent(_walk(trees, real, question)),
            "} else {",
            *indent(_walk(trees, real, str(sure))),
            "}",
        ]
    lines = [
        f"const {real} *const sample = x + row * WIDTH;",
        f"int32_t reached[{LANES}], moved;",
        f"for (int64_t l = 0; l < {LANES}; l++)",
        "    reached[l] = roots[tree + (l < lanes ? l : 0)];",
        *walk,
    ]
    return "\n".join(indent(lines, 3))


def _looks_for_nan(trees: Forest) -> bool:
    """Whether each row is asked once: NaN is seldom, and every node would have to ask."""
    return trees.sure_question not in (None, trees.question)


def _walk(trees: Forest, real: str, question: str) -> list[str]:
    step = f"next + ({question} != 0)" if trees.is_paired else f"next[{question} != 0]"
    return f"""\
do {{
    moved = 0;
    #pragma GCC unroll {LANES}
    for (int64_t l = 0; l < {LANES}; l++) {{
        const tl_tree_node *const node = nodes + reached[l];
        const {real} v = sample[node->feature], s = node->split;
        const int32_t next = node->{step};
        moved |= next ^ reached[l];
        reached[l] = next;
    }}
}} while (moved);""".split("\n")
