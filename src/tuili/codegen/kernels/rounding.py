"""Which products may be rounded to bfloat16: not those whose sums become a logarithm.

Rounding errs in proportion to the largest number of a sum, and a logarithm turns that into an error
of the small ones: what a filter bank finds in quiet bands would be noise. Sums reach a logarithm by
moves, linear steps, powers and bounds; past any other function nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from tuili.codegen.kernel import Context
from tuili.ir import Graph, Node

MOVES = {
    "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Transpose", "Slice", "Split",
    "Concat", "Pad", "Gather", "Reorder",
}  # fmt: skip
LINEAR = {
    "Add", "Sub", "Mul", "Div", "Neg", "Sum", "ReduceSum", "ReduceMean", "Conv", "MatMul", "Gemm",
}  # fmt: skip
POWERS = {"Pow", "Sqrt", "Abs", "ReduceSumSquare", "ReduceL2", "Max", "Min", "Clip"}
_PASSED = MOVES | LINEAR | POWERS


def may_round(node: Node, ctx: Context) -> bool:
    """Whether the factors of a product may be bfloat16."""
    return ctx.bf16 and not becomes_logarithm(node)


def becomes_logarithm(node: Node) -> bool:
    """Whether a logarithm is taken of what the node sums up."""
    met, waiting = {node}, [node]
    while waiting:
        each = waiting.pop()
        steps = {*_steps(each)}
        if not steps <= _PASSED | {"Log"}:
            continue
        if "Log" in steps:
            return True
        found = {user for value in each.outputs for user in value.users} - met
        met |= found
        waiting += found
    return False


def _steps(node: Node) -> Iterator[str]:
    """The operators that a node stands for: its own, and those of its body or epilogue."""
    bodies = [each for each in node.attrs.values() if isinstance(each, Graph)]
    if node.op != "Fused":
        yield node.op
    for body in bodies:
        for inner in body.nodes:
            yield from _steps(inner)
