"""What a model says that is hardly meant: told in a warning, and done as it says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from tuili.errors import ModelWarning
from tuili.ir import Graph, Node

# The inputs that are scales of codes.
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}
_SHOWN = 3


def doubt(graph: Graph, name: str) -> None:
    """Warn of scales that are no numbers."""
    found = [node for node in graph.walk() if any(_odd_scales(node))]
    if found:
        which = ", ".join(repr(node.name or node.output.name) for node in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        warnings.warn(
            f"{name}: scales of codes are infinite or NaN at {which}{more}, and what is computed "
            "from those codes says nothing. Most often the calibration saw an infinite number, "
            "such as an attention mask of -inf: leave it out of what is quantized",
            ModelWarning,
            stacklevel=2,
        )


def _odd_scales(node: Node) -> Iterator[bool]:
    for slot in _SCALES.get(node.op, ()):
        scale = node.inputs[slot] if slot < len(node.inputs) else None
        if scale is not None and scale.constant is not None:
            yield not np.isfinite(np.asarray(scale.constant, np.float32)).all()
