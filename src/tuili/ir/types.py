"""The types of values: tensors with a physical layout, sequences, optionals and maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from tuili.tensors import DType, Shape, shape_text


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type, logical shape (None: rank unknown) and physical layout.

    `layout` is "" for row-major, or `nchw16c`, `nchw8c`, `nchw4c`: the logical shape stays
    [N, C, ...] and memory holds [N, ceil(C / b), ..., b]. Lanes beyond C hold anything.
    """

    dtype: DType
    shape: Shape | None
    layout: str = ""

    def __str__(self) -> str:
        shape = "[*]" if self.shape is None else shape_text(self.shape)
        return f"{self.dtype.value}{shape}" + (f"@{self.layout}" if self.layout else "")

    def with_layout(self, layout: str) -> TensorType:
        """The same tensor in another physical layout."""
        return replace(self, layout=layout)


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list of values of one type."""

    element: ValueType

    def __str__(self) -> str:
        return f"seq<{self.element}>"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value or nothing."""

    element: ValueType

    def __str__(self) -> str:
        return f"optional<{self.element}>"


@dataclass(frozen=True, slots=True)
class MapType:
    """A dictionary from integers or text to values."""

    key: DType
    value: ValueType

    def __str__(self) -> str:
        return f"map<{self.key.value}, {self.value}>"


ValueType: TypeAlias = "TensorType | SequenceType | OptionalType | MapType"


def block_of(layout: str) -> int:
    """The channel block of a layout: 16 for `nchw16c`, 1 for row-major."""
    return int(layout[4:-1]) if layout else 1
