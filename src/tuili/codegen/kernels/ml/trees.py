"""TreeScores: decision trees, walked eight at a time.

A walk is a chain of loads, each of which waits for the one before; eight walks side by side fill
the time that one of them waits. Rows are taken in blocks, so that the trees of a group stay in the
nearest cache for all of them.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.ops.trees import EQUAL, GREATER, LESS, UNORDERED
from tuili.tensors import Array, DType, ceil_div

LANES = 8
ROWS = 32
_GUESSED_DEPTH = 8
# When every node asks the same, one comparison is the whole question.
_ONE_QUESTION = {LESS | EQUAL: "v <= s", LESS: "v < s", GREATER | EQUAL: "v >= s", GREATER: "v > s"}
# Without branches, which would be guessed wrong half of the time.
_ANY_QUESTION = (
    f"(((v < s) * {LESS} + (v == s) * {EQUAL} + (v > s) * {GREATER} + (v != v || s != s) * "
    f"{UNORDERED}) & node->accept)"
)
_STEPS = {
    "SUM": "{to} += {weight};",
    "AVERAGE": "{to} += {weight};",
    "MIN": "if ({weight} < {to}) {to} = {weight};",
    "MAX": "if ({weight} > {to}) {to} = {weight};",
}
_STARTS = {"MIN": "INFINITY", "MAX": "-INFINITY"}


def supports(node: Node, ctx: Context) -> bool:
    """Known trees over rows of f32 or f64."""
    known = all(value is not None and value.is_constant for value in node.inputs[1:])
    return known and node.required(0).dtype in (DType.F32, DType.F64)


def emit(node: Node, ctx: Context) -> None:
    """One grid item is a block of rows."""
    x, y = node.required(0), node.output
    splits, nodes, roots, starts, targets, weights = (_constant(node, i) for i in range(1, 7))
    real, how = x.dtype.c, str(attr(node, "how"))
    k = KernelBuilder(ctx, node, f"trees_{x.dtype.value}")
    k.support(_NODE.replace("REAL", real))
    k.read("x", x)
    k.write("y", y)
    packed = View(ctx.add_weight(f"{y.name}.nodes", _packed(splits, nodes)))
    k.read("packed", packed)
    k.weight("roots", roots.astype(np.int32))
    k.weight("starts", starts.astype(np.int32))
    k.weight("targets", targets.astype(np.int32))
    k.weight("weights", weights)
    ranked = len(node.outputs) > 1
    if ranked:
        k.write("ranks", node.outputs[1])
    k.dims("N WIDTH", x.shape)
    k.dims("TREES TARGETS", (len(roots), int(attr(node, "num_targets"))))
    k.body(_body(how, _question(nodes), real, ranked=ranked))
    rows, trees = x.shape[0], len(roots)
    flops = rows * trees * _GUESSED_DEPTH * 4
    k.emit(grid=ceil_div(rows, ROWS), flops=flops, bytes=size_of(x.tensor) + len(nodes) * 16)


def _constant(node: Node, index: int) -> Array:
    array = node.required(index).constant
    assert array is not None
    return array


def _packed(splits: Array, nodes: Array) -> Array:
    """The nodes as C sees them: one load brings all of one."""
    layout = [("split", splits.dtype), ("feature", "i4"), ("accept", "i4"), ("next", "i4", 2)]
    packed = np.zeros(len(nodes), np.dtype(layout, align=True))
    packed["split"], packed["feature"], packed["accept"] = splits, nodes[:, 0], nodes[:, 1]
    packed["next"] = nodes[:, [3, 2]]
    return np.frombuffer(packed.tobytes(), np.uint8)


def _question(nodes: Array) -> str:
    inner = nodes[nodes[:, 2] != nodes[:, 3]]
    asked = set(inner[:, 1].tolist())
    return _ONE_QUESTION.get(asked.pop(), _ANY_QUESTION) if len(asked) == 1 else _ANY_QUESTION


_NODE = """
typedef struct tl_tree_node {
    REAL split;
    int32_t feature, accept;    /* which outcomes of the comparison take the true branch */
    int32_t next[2];            /* false, true; a leaf leads to itself */
} tl_tree_node;
"""


def _body(how: str, question: str, real: str, *, ranked: bool) -> str:
    voted = f"{real} *voted = ranks + row * TARGETS;" if ranked else ""
    return f"""
const tl_tree_node *const nodes = (const tl_tree_node *)packed;
for (int64_t block = begin; block < end; block++) {{
    const int64_t first = block * {ROWS}, last = first + {ROWS} < N ? first + {ROWS} : N;
    for (int64_t row = first; row < last; row++) {{
        {real} *to = y + row * TARGETS;
        {voted}
        for (int64_t t = 0; t < TARGETS; t++) {{
            to[t] = {_STARTS.get(how, "0")};
            {"voted[t] = 0;" if ranked else ""}
        }}
    }}
    for (int64_t tree = 0; tree < TREES; tree += {LANES}) {{
        const int64_t lanes = TREES - tree < {LANES} ? TREES - tree : {LANES};
        for (int64_t row = first; row < last; row++) {{
{_walk(question, real)}
            {real} *to = y + row * TARGETS;
            {voted}
{_scores(how, ranked=ranked)}
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


def _walk(question: str, real: str) -> str:
    """`at`: the leaves of a row in some trees, which are walked side by side."""
    return f"""\
            const {real} *sample = x + row * WIDTH;
            int32_t at[{LANES}], moved;
            for (int64_t l = 0; l < {LANES}; l++)
                at[l] = roots[tree + (l < lanes ? l : 0)];
            do {{
                moved = 0;
                for (int64_t l = 0; l < {LANES}; l++) {{
                    const tl_tree_node *node = nodes + at[l];
                    const {real} v = sample[node->feature], s = node->split;
                    const int32_t next = node->next[({question}) != 0];
                    moved |= next ^ at[l];
                    at[l] = next;
                }}
            }} while (moved);"""


def _scores(how: str, *, ranked: bool) -> str:
    """What the leaves give to the targets."""
    return f"""\
            for (int64_t l = 0; l < lanes; l++)
                for (int32_t w = starts[at[l]]; w < starts[at[l] + 1]; w++) {{
                    {_STEPS[how].format(to="to[targets[w]]", weight="weights[w]")}
                    {"voted[targets[w]] = 1;" if ranked else ""}
                }}"""
