"""TensorSpec: name, element type and shape of one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuili.tensors.dims import Dim, Shape, parse_dim
from tuili.tensors.dtypes import DType


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is: `TensorSpec("x", DType.F32, (Sym("N"), 3, 224, 224))`."""

    name: str
    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.value}{shape_text(self.shape)}"


def shape_text(shape: Iterable[Dim]) -> str:
    """`[N, 3, H, W]`."""
    return f"[{', '.join(str(dim) for dim in shape)}]"


def parse_shape(dims: Sequence[str | int]) -> Shape:
    """A shape from numbers and dim expressions."""
    return tuple(parse_dim(dim) for dim in dims)
