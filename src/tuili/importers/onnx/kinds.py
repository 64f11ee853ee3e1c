"""Whether the attributes of a node are of the kinds that its operator declares."""

from __future__ import annotations

from typing import Any

from onnx import AttributeProto

from tuili.importers.onnx.call import Call
from tuili.importers.onnx.functions import schema_of
from tuili.ops.table import find

_KIND: Any = AttributeProto
_WORDS = {
    _KIND.FLOAT: "a number",
    _KIND.INT: "an integer",
    _KIND.STRING: "a text",
    _KIND.TENSOR: "a tensor",
    _KIND.GRAPH: "a graph",
    _KIND.FLOATS: "numbers",
    _KIND.INTS: "integers",
    _KIND.STRINGS: "texts",
    _KIND.TENSORS: "tensors",
    _KIND.GRAPHS: "graphs",
    _KIND.SPARSE_TENSOR: "a sparse tensor",
    _KIND.TYPE_PROTO: "a type",
}
_OF_DEFAULTS = ((float, _KIND.FLOAT), (int, _KIND.INT), (str, _KIND.STRING))


def check_kinds(call: Call, version: int) -> None:
    """Raise InvalidModel for an attribute of another kind than the standard, or the table, says."""
    for proto in call.proto.attribute:
        given = call.bound.get(proto.ref_attr_name) if proto.ref_attr_name else proto
        expected = _expected(call, proto.name, version)
        if given is None or expected is None or given.type == expected:
            continue
        # Whole numbers where any number is asked for are no mistake.
        if (given.type, expected) != (_KIND.INT, _KIND.FLOAT):
            found = _WORDS.get(given.type, f"of kind {given.type}")
            call.fail(f"attribute {proto.name!r} is {found}; expected {_WORDS[expected]}")


def _expected(call: Call, name: str, version: int) -> int | None:
    schema = schema_of(call.proto.op_type, call.proto.domain, version)
    if schema is not None:
        declared = schema.attributes.get(name)
        return None if declared is None else int(declared.type.value)
    row = find(call.op)
    default = None if row is None else row.attrs.get(name)
    return next((kind for type_, kind in _OF_DEFAULTS if type(default) is type_), None)
