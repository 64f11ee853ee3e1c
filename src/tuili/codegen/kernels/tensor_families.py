"""The families of everything that is neither a product nor a convolution nor control flow."""

from __future__ import annotations

from tuili.codegen.family import Family
from tuili.codegen.kernels import elementwise
from tuili.codegen.kernels.ml import coupling, distance, trees
from tuili.codegen.kernels.movement import (
    fill,
    found,
    frames,
    gather,
    gather_codes,
    gather_halves,
    known,
    pad,
    reorder,
)
from tuili.codegen.kernels.movement import strided as movement
from tuili.codegen.kernels.quantized import dynamic as quantize
from tuili.codegen.kernels.recurrent import coded
from tuili.codegen.kernels.recurrent import steps as recurrent
from tuili.codegen.kernels.reductions import arg, line_norm, norm, reduce, search, softmax
from tuili.codegen.kernels.sampling import grid_sample, resize, roi_align
from tuili.codegen.kernels.signals import dft

_ELEMENTWISE = Family("elementwise", elementwise.emit, elementwise.supports)
_KNOWN = Family("known contents", known.emit, known.supports)
_REDUCE = Family("reduce", reduce.emit, reduce.supports)
_SOFTMAX = Family("softmax", softmax.emit, softmax.supports)
_CUMULATIVE = Family("cumulative", search.emit_cumulative, search.supports)
_SCATTER_ELEMENTS = Family("scatter", gather.emit_scatter_elements, gather.supports_scatter)
_PARAMETRIC = Family("elementwise", elementwise.emit, elementwise.supports_parameters)
_LINE_NORM = Family("line norm", line_norm.emit, line_norm.supports)
_RECURRENT = Family("recurrent", recurrent.emit, recurrent.supports)
_ROW_NORM = Family("row norm", norm.emit_rows, norm.supports_rows)
_CHANNEL_NORM = Family("channel norm", norm.emit_channels, norm.supports_channels)

TENSOR_FAMILIES: dict[str, tuple[Family, ...]] = {
    **dict.fromkeys(elementwise.OPERATORS, (_ELEMENTWISE,)),
    **dict.fromkeys(elementwise.PARAMETRIC, (_PARAMETRIC,)),
    "DynamicQuantizeLinear": (Family("quantize", quantize.emit, quantize.supports),),
    **dict.fromkeys(("LpNormalization", "Hardmax", "LRN"), (_LINE_NORM,)),
    **dict.fromkeys(("Dims", "Shape", "Size"), (_KNOWN,)),
    **dict.fromkeys(reduce.OPERATORS, (_REDUCE,)),
    **dict.fromkeys(("Softmax", "LogSoftmax"), (_SOFTMAX,)),
    **dict.fromkeys(("ArgMax", "ArgMin"), (Family("arg", arg.emit_arg, search.supports),)),
    **dict.fromkeys(("CumSum", "CumProd"), (_CUMULATIVE,)),
    "com.microsoft::CDist": (Family("distance", distance.emit, distance.supports),),
    "CoupledPairs": (Family("coupling", coupling.emit, coupling.supports),),
    "TreeScores": (Family("trees", trees.emit, trees.supports),),
    "TopK": (Family("heap", search.emit_top_k, search.supports),),
    **dict.fromkeys(norm.OPERATORS, (_ROW_NORM,)),
    **dict.fromkeys(norm.BY_CHANNEL, (_CHANNEL_NORM,)),
    "Transpose": (Family("strided copy", movement.emit_transpose, movement.supports_plain),),
    "Expand": (Family("strided copy", movement.emit_expand, movement.supports_plain),),
    "Tile": (Family("strided copy", movement.emit_tile, movement.supports_plain),),
    "Slice": (Family("strided copy", movement.emit_slice, movement.supports_slice),),
    "Concat": (Family("strided copy", movement.emit_concat, movement.supports_concat),),
    "Split": (Family("strided copy", movement.emit_split, movement.supports_split),),
    "DepthToSpace": (
        Family("strided copy", movement.emit_depth_to_space, movement.supports_plain),
    ),
    "SpaceToDepth": (
        Family("strided copy", movement.emit_space_to_depth, movement.supports_plain),
    ),
    "Gather": (
        Family("gather_halves", gather_halves.emit, gather_halves.supports),
        Family("gather", gather.emit_gather, gather.supports),
    ),
    "com.microsoft::GatherBlockQuantized": (
        Family("gather codes", gather_codes.emit, gather_codes.supports),
    ),
    "GatherElements": (Family("gather", gather.emit_gather_elements, gather.supports),),
    "GatherND": (Family("gather", gather.emit_gather_nd, gather.supports),),
    **dict.fromkeys(("ScatterElements", "Scatter"), (_SCATTER_ELEMENTS,)),
    "ScatterND": (Family("scatter", gather.emit_scatter_nd, gather.supports_scatter_nd),),
    "RoiAlign": (Family("roi align", roi_align.emit, roi_align.supports),),
    "GridSample": (Family("grid sample", grid_sample.emit, grid_sample.supports),),
    "Pad": (Family("pad", pad.emit, pad.supports),),
    "Resize": (Family("resize", resize.emit, resize.supports),),
    "ConstantOfShape": (Family("fill", fill.emit_constant_of_shape, fill.supports_bytes),),
    "Range": (
        _KNOWN,
        Family("count and fill", found.emit_late_range, found.supports_range),
        Family("fill", fill.emit_range, fill.supports),
    ),
    "NonZero": (Family("count and write", found.emit_non_zero, found.supports),),
    "Compress": (Family("count and write", found.emit_compress, found.supports),),
    "NonMaxSuppression": (
        Family("suppress", found.emit_non_max_suppression, found.supports_suppression),
    ),
    "EyeLike": (Family("fill", fill.emit_eye_like, fill.supports),),
    "OneHot": (Family("one hot", fill.emit_one_hot, fill.supports_one_hot),),
    "Trilu": (Family("trilu", fill.emit_trilu, fill.supports_bytes),),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), (_RECURRENT,)),
    "CodedLSTM": (Family("coded cells", coded.emit, coded.supports),),
    "DFT": (Family("fast transform", dft.emit, dft.supports),),
    "Frames": (Family("frames", frames.emit, frames.supports),),
    "Reorder": (Family("reorder", reorder.emit, reorder.supports),),
}
