"""Copies of whole buffers, and views that need none."""

from __future__ import annotations

from tuili.codegen.kernel import Context, size_of
from tuili.ir import Node, Value
from tuili.lower.program import Call, Kernel, Pointer, View
from tuili.tensors import Dim, ceil_div

_COPY = Kernel(
    "copy_bytes",
    ("const uint8_t *restrict from", "uint8_t *restrict to", "int64_t size"),
    "const int64_t first = begin * 65536, last = tl_min(end * 65536, size);\n"
    "if (first < last) memcpy(to + first, from + first, (size_t)(last - first));",
)


def copy_call(label: str, source: View, target: View, size: Dim) -> Call:
    """A call that copies `size` bytes, 64 KiB an item."""
    args = (Pointer(source, writes=False), Pointer(target, writes=True), size)
    return Call(label, _COPY, args, ceil_div(size, 65536), 0, size * 2)


def emit_view(node: Node, ctx: Context) -> None:
    """Reshape and the like: the same memory; a copy only where an output needs its own."""
    share_or_copy(node.label, node.required(0), node.output, ctx)


def share_or_copy(label: str, source: Value, value: Value, ctx: Context) -> None:
    """Let `value` share the memory of `source`, or fill its own."""
    if not ctx.alias(value, source):
        call = copy_call(label, ctx.view(source), ctx.view(value), size_of(source.tensor))
        ctx.program.steps.append(call)
