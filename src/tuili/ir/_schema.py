"""The saved form's schema, version 1: what `graph.json` holds. See saved.py.

The JSON Schema in docs/reference/graph.schema.json is generated from these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

FORMAT = "tuili-graph"
VERSION = 1

Size: TypeAlias = Annotated[int, Meta(ge=0)]
# A number, or a dim expression such as "(H + 3) // 4".
SavedDim: TypeAlias = "int | str"
FileName: TypeAlias = Annotated[str, Meta(pattern=r"^[^/\\]+\.safetensors$")]


class SavedTensorType(Struct, tag_field="kind", tag="tensor", forbid_unknown_fields=True):
    """Element type, shape (null: rank not known) and physical layout ("" is row-major)."""

    dtype: str
    shape: list[SavedDim] | None
    layout: str = ""


class SavedSequenceType(Struct, tag_field="kind", tag="sequence", forbid_unknown_fields=True):
    """A list of values of one type."""

    element: SavedType


class SavedOptionalType(Struct, tag_field="kind", tag="optional", forbid_unknown_fields=True):
    """A value or nothing."""

    element: SavedType


class SavedMapType(Struct, tag_field="kind", tag="map", forbid_unknown_fields=True):
    """A dictionary from integers or text to values."""

    key: str
    value: SavedType


SavedType: TypeAlias = SavedTensorType | SavedSequenceType | SavedOptionalType | SavedMapType


class SavedArray(Struct, tag_field="kind", tag="array", forbid_unknown_fields=True):
    """An array: `tensor` is its key in the weights file; texts are listed in `strings`."""

    dtype: str
    shape: list[Size]
    tensor: str | None = None
    strings: list[str] | None = None


class IntAttr(Struct, tag_field="kind", tag="int", forbid_unknown_fields=True):
    """A whole number."""

    value: int


class FloatAttr(Struct, tag_field="kind", tag="float", forbid_unknown_fields=True):
    """A number; JSON has no other words for what is not finite."""

    value: float | Literal["nan", "inf", "-inf"]


class StringAttr(Struct, tag_field="kind", tag="string", forbid_unknown_fields=True):
    """Text."""

    value: str


class DTypeAttr(Struct, tag_field="kind", tag="dtype", forbid_unknown_fields=True):
    """An element type, such as "f32"."""

    value: str


class DimAttr(Struct, tag_field="kind", tag="dim", forbid_unknown_fields=True):
    """A dim expression."""

    value: str


class ListAttr(Struct, tag_field="kind", tag="list", forbid_unknown_fields=True):
    """Several attributes."""

    items: list[SavedAttr]


class GraphAttr(Struct, tag_field="kind", tag="graph", forbid_unknown_fields=True):
    """A nested graph; it may read values of the graphs around it by name."""

    graph: SavedGraph


SavedAttr: TypeAlias = (
    IntAttr | FloatAttr | StringAttr | DTypeAttr | DimAttr | ListAttr | GraphAttr | SavedArray
)


class SavedValue(Struct, forbid_unknown_fields=True):
    """A value where it is defined; its type is null while it is not known."""

    name: str
    type: SavedType | None = None


class SavedConstant(Struct, forbid_unknown_fields=True):
    """A constant."""

    name: str
    contents: SavedArray
    layout: str = ""


class SavedNode(Struct, forbid_unknown_fields=True):
    """outputs = op(inputs); a null input is an optional one left out."""

    op: str
    inputs: list[str | None]
    outputs: list[SavedValue]
    attrs: dict[str, SavedAttr] = {}
    name: str = ""


class SavedGraph(Struct, forbid_unknown_fields=True):
    """A graph; nodes stand in topological order."""

    name: str
    inputs: list[SavedValue]
    constants: list[SavedConstant]
    nodes: list[SavedNode]
    outputs: list[str]
    metadata: dict[str, str] = {}


class SavedModel(Struct, forbid_unknown_fields=True):
    """The whole file; `weights` names the safetensors file beside it."""

    format: Literal["tuili-graph"]
    version: Literal[1]
    weights: FileName
    graph: SavedGraph


class SavedHead(Struct):
    """What every version of the format begins with."""

    format: str
    version: int
