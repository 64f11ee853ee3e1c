"""Operators that are functions: their bodies, from the model or from the standard's schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto

from tuili.importers.onnx.call import Call
from tuili.importers.onnx.types import proto_of
from tuili.importers.onnx.upgrades import is_known

_MOST_VERSIONS = 1 << 31
Functions = Mapping[tuple[str, str, str], FunctionProto]


@dataclass(frozen=True, slots=True)
class Body:
    """A function body, the operator sets it is written in, and the attributes of the call."""

    proto: FunctionProto
    opsets: Mapping[str, int]
    bound: Mapping[str, AttributeProto]


@cache
def schema_of(op_type: str, domain: str, version: int) -> Any:
    """The standard's OpSchema of an operator in an operator set; None when it has none."""
    if not 0 < version < _MOST_VERSIONS:
        return None
    try:
        return onnx.defs.get_schema(op_type, version, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None


def body_of(call: Call, node: NodeProto, version: int, functions: Functions) -> Body | None:
    """The body to expand a node by, or None when it is an operator that tuili knows."""
    local = functions.get((node.domain, node.op_type, node.overload))
    if local is not None:
        return _local(call, local)
    if is_known(call.op):
        return None
    schema = schema_of(node.op_type, node.domain, version)
    if schema is None:
        return None
    if schema.has_function:
        return _standard(call, schema, schema.function_body)
    if schema.has_context_dependent_function:
        call.infer()
        types = [proto_of(None if value is None else value.type) for value in call.inputs]
        plain = NodeProto()
        plain.CopyFrom(node)
        text = schema.get_context_dependent_function(
            plain.SerializeToString(), [type_.SerializeToString() for type_ in types]
        )
        if text:
            return _standard(call, schema, FunctionProto.FromString(text))
    return None


def _given(call: Call) -> dict[str, AttributeProto]:
    """The attributes of the call, its own references already followed."""
    given: dict[str, AttributeProto] = {}
    for attr in call.proto.attribute:
        proto = call.bound.get(attr.ref_attr_name) if attr.ref_attr_name else attr
        if proto is not None:
            given[attr.name] = proto
    return given


def _local(call: Call, proto: FunctionProto) -> Body:
    bound = {attr.name: attr for attr in proto.attribute_proto} | _given(call)
    missing = [name for name in proto.attribute if name not in bound]
    if missing:
        call.fail(f"the function {proto.name!r} requires the attribute {missing[0]!r}")
    return Body(proto, opsets_of(proto.opset_import), bound)


def _standard(call: Call, schema: Any, proto: FunctionProto) -> Body:
    defaults = {
        name: attr.default_value
        for name, attr in schema.attributes.items()
        if attr.default_value and attr.default_value.type
    }
    return Body(proto, opsets_of(proto.opset_import), defaults | _given(call))


def opsets_of(entries: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """The version of each domain; the standard's own domain is the empty one."""
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in entries}
