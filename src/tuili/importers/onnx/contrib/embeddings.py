"""com.microsoft: the first layer of BERT, whose look-ups are summed and normalised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.importers.onnx.call import Call, Converter, Results
from tuili.ir import Value

_IDS, _SEGMENT_IDS, _WORDS, _POSITIONS, _SEGMENTS, _GAMMA, _BETA, _MASK = range(8)
_POSITION_IDS = 8
_SCALES, _ZEROS = 8, 13  # of the five quantized tables from _WORDS on

Real = Callable[[int, Value], Value]  # the numbers that rows of an input stand for


def _embed(call: Call) -> Results | None:
    if call.take("mask_index_type", 0) == 2 and call.wants(1):
        return None
    return _embedded(call, call.given(_POSITION_IDS), lambda slot, rows: rows)


def _quantized_embed(call: Call) -> Results:
    def real(slot: int, rows: Value) -> Value:
        parameters = [call.input(start + slot - _WORDS) for start in (_SCALES, _ZEROS)]
        return call.add("DequantizeLinear", [rows, *parameters])

    return _embedded(call, None, real)


def _embedded(call: Call, position_ids: Value | None, real: Real) -> Results:
    total = real(_WORDS, _rows(call, _WORDS, call.input(_IDS)))
    total = call.add("Add", [total, real(_POSITIONS, _rows(call, _POSITIONS, position_ids))])
    segment_ids, segments = call.given(_SEGMENT_IDS), call.given(_SEGMENTS)
    if segment_ids is not None and segments is not None:
        rows = real(_SEGMENTS, _rows(call, _SEGMENTS, segment_ids))
        total = call.add("Add", [total, rows])
    scale, bias = (real(slot, call.input(slot)) for slot in (_GAMMA, _BETA))
    attrs = {"axis": -1, "epsilon": call.take("epsilon", 1e-12)}
    results = call.finish("LayerNormalization", [total, scale, bias], attrs)
    if len(call.outputs) == 1:
        return results
    return [results[0], _lengths(call), total][: len(call.outputs)]


def _rows(call: Call, table: int, ids: Value | None) -> Value:
    """The rows of a table at the ids, or as many of the first as a text has tokens."""
    if ids is not None:
        return call.add("Gather", [call.input(table), ids])
    count = call.add("Shape", [call.input(_IDS)], {"start": 1, "end": 2})
    zero = call.ints([0], "zero")
    return call.add("Slice", [call.input(table), zero, count, zero])


def _lengths(call: Call) -> Value:
    """How many tokens of each text the mask keeps; zeros without a mask."""
    mask = call.given(_MASK)
    if mask is not None:
        return call.add("ReduceSum", [mask, call.ints([1], "axis")], {"keepdims": 0})
    texts = call.add("Shape", [call.input(_IDS)], {"start": 0, "end": 1})
    return call.add("ConstantOfShape", [texts], {"value": np.zeros(1, np.int32)})


EMBEDDINGS: dict[str, Converter] = {
    "com.microsoft::EmbedLayerNormalization": _embed,
    "com.microsoft::QEmbedLayerNormalization": _quantized_embed,
}
