"""The schema table against the messages that the stock client carries."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from tuili.server.grpc.methods import INFER_PATH, METHODS, STREAM_PATH
from tuili.server.grpc.schema import HEALTH_V1, INFERENCE

pytest.importorskip("tritonclient.grpc")
from tritonclient.grpc import model_config_pb2, service_pb2


def messages() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def walk(prefix: str, message: Any) -> None:
        if not message.options.map_entry:
            found.append((prefix + message.name, message))
        for nested in message.nested_type:
            walk(f"{prefix}{message.name}.", nested)

    for module in (model_config_pb2, service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            walk("", message)
    return found


def fields(message: Any) -> set[tuple[Any, ...]]:
    return {
        (
            field.number,
            field.name,
            field.type,
            field.label,
            field.type_name,
            field.oneof_index if field.HasField("oneof_index") else None,
        )
        for field in message.field
    }


@pytest.mark.parametrize(("name", "theirs"), messages(), ids=[name for name, _ in messages()])
def test_every_message_has_the_fields_of_the_protocol(name: str, theirs: Any):
    ours = descriptor_pb2.DescriptorProto()
    INFERENCE[name].DESCRIPTOR.CopyToProto(ours)
    assert fields(ours) == fields(theirs)


def test_enumerations_have_the_values_of_the_protocol():
    ours = INFERENCE["ModelInput"].DESCRIPTOR.fields_by_name["data_type"].enum_type
    assert dict(model_config_pb2.DataType.items()) == {
        value.name: value.number for value in ours.values
    }


def test_every_method_of_the_service_is_there():
    file = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(file)
    (service,) = file.service
    paths = {f"/inference.{service.name}/{method.name}" for method in service.method}
    inference = {path for path in METHODS if path.startswith("/inference.")}
    assert paths == {*inference, INFER_PATH, STREAM_PATH}


def test_the_pool_is_private():
    # The stock client registered the same names; both kinds of message exist side by side.
    ours = INFERENCE["ModelReadyRequest"](name="m", version="2")
    theirs = service_pb2.ModelReadyRequest.FromString(ours.SerializeToString())
    assert (theirs.name, theirs.version) == ("m", "2")
    assert HEALTH_V1["HealthCheckResponse"](status="SERVING").SerializeToString() == b"\x08\x01"
