"""TensorSpec: name, element type and shape of one tensor, or the type of another value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuili.tensors.dims import Dim, Shape, parse_dim
from tuili.tensors.dtypes import DType


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is: `TensorSpec("x", DType.F32, (Sym("N"), 3, 224, 224))`.

    `type` is the whole type as text of what is no tensor of known rank: `seq<f32[N, 3]>`,
    `map<i64, f32[]>`, `f32[*]`. Its `dtype` is that of its innermost tensors, its `shape` empty.
    """

    name: str
    dtype: DType
    shape: Shape
    type: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.type or self.dtype.value + shape_text(self.shape)}"

    @property
    def is_object(self) -> bool:
        """Whether native code sees a handle in place of the value: text, or no tensor at all."""
        return bool(self.type) or self.dtype is DType.STR


def shape_text(shape: Iterable[Dim]) -> str:
    """`[N, 3, H, W]`."""
    return f"[{', '.join(str(dim) for dim in shape)}]"


def parse_shape(dims: Sequence[str | int]) -> Shape:
    """A shape from numbers and dim expressions."""
    return tuple(parse_dim(dim) for dim in dims)
