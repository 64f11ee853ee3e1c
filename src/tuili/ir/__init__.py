"""The graph IR; knows no operator and no file format."""

from tuili.ir.graph import Attr, Graph, Node, Value, reads
from tuili.ir.types import MapType, OptionalType, SequenceType, TensorType, ValueType, block_of
from tuili.ir.verifier import verify

__all__ = [
    "Attr",
    "Graph",
    "MapType",
    "Node",
    "OptionalType",
    "SequenceType",
    "TensorType",
    "Value",
    "ValueType",
    "block_of",
    "reads",
    "verify",
]
