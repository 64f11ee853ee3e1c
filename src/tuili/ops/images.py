"""EachImage: a part of a network run for one image of the batch after the other.

Its body sees batches of one. Passes make it, no file has it; see `passes/each_image.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tuili.ir import Graph, TensorType, ValueType
from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array


def of_one(type_: TensorType) -> TensorType:
    """The type of one image of a batch, as a batch of one."""
    assert type_.shape is not None
    return replace(type_, shape=(1, *type_.shape[1:]))


def _shape(site: Site) -> list[Result]:
    body: Graph = site.attr("body")
    batch = site.shape(0)[0]
    ones: list[ValueType | None] = [of_one(value.tensor) for value in site.node.inputs if value]
    found = site.body(body, ones)
    return [
        replace(each, shape=(batch, *each.shape[1:]))
        for each in found
        if isinstance(each, TensorType) and each.shape is not None
    ]


def _meaning(*inputs: Array, body: Any) -> tuple[Array, ...]:
    rounds = [body(*(x[i : i + 1] for x in inputs)) for i in range(len(inputs[0]))]
    if not rounds:
        return tuple(body.empty(index, 0)[:, 0] for index in range(body.num_outputs))
    return tuple(np.concatenate(parts) for parts in zip(*rounds, strict=True))


ROWS = (op("EachImage", "xs*:any", "ys*:any", _shape, _meaning, attrs={"body": REQUIRED}),)
