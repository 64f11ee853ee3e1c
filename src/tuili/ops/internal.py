"""tuili's own operators: what passes leave in a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tuili.errors import InvalidModel
from tuili.ir import Graph, TensorType
from tuili.ops.attention import masked_softmax
from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType


def _dims_shape(site: Site) -> list[Result]:
    values = site.attr("values")
    scalar = bool(site.attr("rank0"))
    array = np.empty(len(values), object)
    array[:] = values
    site.know(array.reshape(()) if scalar else array)
    return [() if scalar else (len(values),)]


def _dims(values: Sequence[int], rank0: int) -> Array:
    array = np.array(values, np.int64)
    return array.reshape(()) if rank0 else array


def _fused_shape(site: Site) -> list[Result]:
    """A fused body works on elements: its values have rank 0; the inputs broadcast."""
    body: Graph = site.attr("body")
    shapes = [site.shape(index) for index in range(site.num_inputs)]
    inputs = [TensorType(site.dtype(index), ()) for index in range(site.num_inputs)]
    result = site.body(body, inputs)[0]
    if not isinstance(result, TensorType) or len(body.outputs) != 1:
        site.fail(f"its body returns {len(body.outputs)} values; expected one tensor")
    before = site.node.output.type
    layout = before.layout if isinstance(before, TensorType) else ""
    return [TensorType(result.dtype, tuple(site.broadcast(*shapes)), layout)]


def _fused(*inputs: Array, body: Callable[..., list[Any]]) -> Array:
    shape = np.broadcast_shapes(*(item.shape for item in inputs))
    return np.broadcast_to(body(*inputs)[0], shape)


def _reorder_shape(site: Site) -> list[Result]:
    return [TensorType(site.dtype(0), site.shape(0), site.attr("layout"))]


def _attention_shape(site: Site) -> list[Result]:
    q, k, v = (_axes_of(site, at, f"{name}_order") for at, name in enumerate("qkv"))
    for axis, what in (("b", "the batch of keys"), ("d", "the width of a head of keys")):
        site.same(k[axis], q[axis], what)
    site.same(v["b"], q["b"], "the batch of values")
    site.same(v["s"], k["s"], "as many values as keys")
    site.same(v["h"], k["h"], "as many heads of values as of keys")
    if isinstance(q["h"], int) and isinstance(k["h"], int) and k["h"]:
        site.divides(k["h"], q["h"], "the number of heads of queries")
    else:
        site.same(k["h"], q["h"], "as many heads of keys as of queries")
    if site.has(3):
        scores = (q["b"], q["h"], q["s"], k["s"])
        site.broadcasts_to(site.shape(3), scores, "the mask for the scores")
    sizes = {"b": q["b"], "h": q["h"], "s": q["s"], "d": v["d"]}
    return [[sizes[axis] for axis in site.attr("y_order")]]


def _axes_of(site: Site, index: int, order: str) -> dict[str, Dim]:
    return dict(zip(site.attr(order), site.shape(index), strict=True))


def _attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    *,
    scale: float,
    q_order: str,
    k_order: str,
    v_order: str,
    y_order: str,
) -> Array:
    """softmax(q k^T * scale + mask) v; each operand in its own order of axes.

    Several heads of queries may share one of keys and values; a row that sees no key is 0.
    """
    q, k, v = (
        array.transpose([order.index(axis) for axis in "bhsd"])
        for array, order in ((q, q_order), (k, k_order), (v, v_order))
    )
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) * np.float32(scale)
    if mask is not None:
        scores = scores + mask
    result = masked_softmax(scores) @ v
    return result.transpose(["bhsd".index(axis) for axis in y_order]).astype(np.float32)


def _cache_rows_shape(site: Site) -> list[Result]:
    batch, heads, _, size = site.need_rank(1, 4)
    room = site.contents.dims(site.node.input(4))
    if room is None:
        site.fail("its room must be a shape; a pass writes this operator")
    return [(batch, heads, room[0], size)]


def _cache_rows(
    past: Array | None, fresh: Array, starts: Array, counts: Array, room: Array
) -> Array:
    """What was, with the first of what is new at each row's own place, and zeros elsewhere."""
    batch, heads, _, size = fresh.shape
    cache = np.zeros((batch, heads, int(room[0]), size), fresh.dtype)
    if past is not None:
        cache[:, :, : past.shape[2]] = past
    for row, (start, count) in enumerate(zip(starts.ravel(), counts.ravel(), strict=True)):
        first, end = max(start, 0), min(start + count, cache.shape[2])
        cache[row, :, first:end] = fresh[row, :, first - start : end - start]
    return cache


_ATTENTION_ATTRS = {
    "scale": 1.0,
    "q_order": "bhsd",
    "k_order": "bhsd",
    "v_order": "bhsd",
    "y_order": "bhsd",
}


def _fault(message: str) -> None:
    raise InvalidModel(message)


def _round_to(x: Array, to: DType) -> Array:
    return x.astype(to.numpy).astype(x.dtype)


ROWS = (
    # A branch that cannot run for the given shapes: running it is an error.
    op(
        "Fault",
        "",
        "outputs*:any",
        lambda site: [value.type for value in site.node.outputs],
        _fault,
        attrs={"message": REQUIRED},
        random=True,
    ),
    op(
        "FusedAttention",
        "q k v mask?",
        "y",
        _attention_shape,
        _attention,
        attrs=_ATTENTION_ATTRS,
        allow="float",
    ),
    op(
        "CacheRows",
        "past? fresh starts:i64 counts:i64 room:i64",
        "cache",
        _cache_rows_shape,
        _cache_rows,
    ),
    op("Dims", "", "dims:i64", _dims_shape, _dims, attrs={"values": REQUIRED, "rank0": 0}),
    op("Fused", "xs*:any", "y:any", _fused_shape, _fused, attrs={"body": REQUIRED}),
    # A value as a smaller type would hold it, in its own type.
    op(
        "RoundTo",
        "x",
        "y",
        same,
        _round_to,
        attrs={"to": REQUIRED},
        allow="float",
        elementwise=True,
    ),
    op("Reorder", "x", "y", _reorder_shape, lambda x, layout: x, attrs={"layout": ""}),
)
