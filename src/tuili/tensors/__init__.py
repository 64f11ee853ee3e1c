"""What flows along an edge: element types, symbolic dims, tensor specs."""

from tuili.tensors.dims import (
    Dim,
    Expr,
    Shape,
    Sym,
    broadcast_dim,
    ceil_div,
    dim_max,
    dim_min,
    evaluate,
    floor_div,
    floor_mod,
    numel,
    parse_dim,
    substitute,
    symbols_of,
)
from tuili.tensors.dtypes import Array, DType
from tuili.tensors.spec import TensorSpec, parse_shape, shape_text

__all__ = [
    "Array",
    "DType",
    "Dim",
    "Expr",
    "Shape",
    "Sym",
    "TensorSpec",
    "broadcast_dim",
    "ceil_div",
    "dim_max",
    "dim_min",
    "evaluate",
    "floor_div",
    "floor_mod",
    "numel",
    "parse_dim",
    "parse_shape",
    "shape_text",
    "substitute",
    "symbols_of",
]
