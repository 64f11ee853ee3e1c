"""The families of everything that is neither a product nor a convolution nor control flow."""

from __future__ import annotations

from tuili.codegen.family import Family
from tuili.codegen.kernels import (
    elementwise,
    known,
    movement,
    norm,
    reduce,
    reorder,
    softmax,
)

_ELEMENTWISE = Family("elementwise", elementwise.emit, elementwise.supports)
_KNOWN = Family("known contents", known.emit, known.supports)
_REDUCE = Family("reduce", reduce.emit, reduce.supports)
_SOFTMAX = Family("softmax", softmax.emit, softmax.supports)
_ROW_NORM = Family("row norm", norm.emit_rows, norm.supports_rows)
_CHANNEL_NORM = Family("channel norm", norm.emit_channels, norm.supports_channels)

TENSOR_FAMILIES: dict[str, tuple[Family, ...]] = {
    **dict.fromkeys(elementwise.OPERATORS, (_ELEMENTWISE,)),
    **dict.fromkeys(("Dims", "Shape", "Size"), (_KNOWN,)),
    **dict.fromkeys(reduce.OPERATORS, (_REDUCE,)),
    **dict.fromkeys(("Softmax", "LogSoftmax"), (_SOFTMAX,)),
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
    "Reorder": (Family("reorder", reorder.emit, reorder.supports),),
}
