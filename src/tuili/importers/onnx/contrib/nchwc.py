"""com.microsoft.nchwc: operators on channels in blocks, where the blocks do not show.

A reorder changes the place of elements in memory only. `Conv` has no converter: its weights lie in
blocks as long as the vectors of the processor that the model was optimised on, and the file does
not say which that was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.importers.onnx.call import Call, Converter, Results
from tuili.importers.onnx.contrib.nhwc import finish_at_back, to_front

_RANK = 4


def _reorder_input(call: Call) -> Results:
    x = call.input(0)
    return call.finish("Identity", [to_front(call, x, _RANK) if call.take("channels_last") else x])


def _reorder_output(call: Call) -> Results:
    if call.take("channels_last"):
        return finish_at_back(call, call.input(0), _RANK)
    return call.finish("Identity", call.inputs[:1])


def _pool(call: Call) -> None:
    """The pool of the standard."""
    call.op = call.op.rpartition("::")[2]


def _upsample(call: Call) -> Results:
    scales: Sequence[int] = call.take("scales", (1, 1, 1, 1))
    mode = str(call.take("mode", "nearest"))
    attrs = {
        "mode": "linear" if mode == "bilinear" else mode,
        "nearest_mode": "floor",
        "coordinate_transformation_mode": call.take(
            "coordinate_transformation_mode", "asymmetric" if mode == "nearest" else "half_pixel"
        ),
    }
    factors = call.constant(np.array(scales, np.float32), "scales")
    return call.finish("Resize", [call.input(0), None, factors], attrs)


NCHWC: dict[str, Converter] = {
    f"com.microsoft.nchwc::{name}": convert
    for name, convert in {
        "AveragePool": _pool,
        "GlobalAveragePool": _pool,
        "GlobalMaxPool": _pool,
        "MaxPool": _pool,
        "ReorderInput": _reorder_input,
        "ReorderOutput": _reorder_output,
        "Upsample": _upsample,
    }.items()
}
