"""CacheRows: the keys or values of all steps so far, in one pass over the rows of the cache."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.ir import Node
from tuili.tensors import DType, numel


def supports(node: Node, ctx: Context) -> bool:
    """f32 in plain layout."""
    values = [value for value in (node.input(0), node.input(1), node.output) if value is not None]
    return all(value.dtype is DType.F32 and not value.layout for value in values)


def emit(node: Node, ctx: Context) -> None:
    """A grid item is one position of one head."""
    past, fresh, y = node.input(0), node.required(1), node.output
    k = KernelBuilder(ctx, node, "cache_rows")
    if past is not None:
        k.read("past", past)
    k.read("fresh", fresh)
    k.read("starts", node.required(2))
    k.read("counts", node.required(3))
    k.write("y", y)
    _, heads, steps, size = fresh.shape
    k.dims("HEADS STEPS SIZE ROOM", (heads, steps, size, y.shape[2]))
    k.dim("OLD", 0 if past is None else past.shape[2])
    old = "past + (head * OLD + place) * SIZE" if past is not None else "(const float *)0"
    k.body(
        f"""
        for (int64_t item = begin; item < end; item++) {{
            const int64_t head = item / ROOM, place = item % ROOM, row = head / HEADS;
            const int64_t step = place - starts[row];
            const float *const from = step >= 0 && step < counts[row]
                                          ? fresh + (head * STEPS + step) * SIZE
                                      : place < OLD ? {old}
                                                    : (const float *)0;
            if (from)
                memcpy(y + item * SIZE, from, sizeof(float) * SIZE);
            else
                memset(y + item * SIZE, 0, sizeof(float) * SIZE);
        }}
        """
    )
    k.emit(grid=numel(y.shape[:3]), bytes=size_of(y.tensor) * 2)
