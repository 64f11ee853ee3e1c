"""The gRPC methods: inference, streams and the rest, right and wrong."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2

from tests.conformance.triton.differential.http_infer import _VALUES as VALUES
from tests.conformance.triton.differential.http_infer import pack
from tests.conformance.triton.differential.models import DATATYPES
from tests.conformance.triton.differential.wire import Case, Observed, Peer, unary

_RAW = pack("INT32", list(range(16)))
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def request(model: str = "add_sub", **fields: Any) -> Any:
    """A request to `add_sub` with raw inputs; `fields` replace those of the message."""
    given: dict[str, Any] = {
        "model_name": model,
        "inputs": [{"name": name, "datatype": "INT32", "shape": [1, 16]} for name in ("INPUT0", "INPUT1")],
        "raw_input_contents": [_RAW, _RAW],
    }  # fmt: skip
    return service_pb2.ModelInferRequest(**(given | fields))


def _tensor(name: str = "INPUT0", **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "INT32", "shape": [1, 16]} | fields


def _pair(**first: Any) -> list[dict[str, Any]]:
    return [_tensor(**first), _tensor("INPUT1")]


def _infer() -> list[Case]:
    sixteen = list(range(16))
    both = [
        _tensor(contents={"int_contents": sixteen}),
        _tensor("INPUT1", contents={"int_contents": sixteen}),
    ]
    requests: dict[str, Any] = {
        "raw": request(),
        "contents": request(inputs=both, raw_input_contents=[]),
        "contents and raw": request(inputs=both),
        "one of each": request(inputs=[both[0], _tensor("INPUT1")], raw_input_contents=[_RAW]),
        "contents short": request(inputs=[_tensor(contents={"int_contents": [1]}), both[1]], raw_input_contents=[]),
        "contents wrong kind": request(inputs=[_tensor(contents={"fp32_contents": [1.0] * 16}), both[1]], raw_input_contents=[]),
        "no contents": request(raw_input_contents=[]),
        "raw one": request(raw_input_contents=[_RAW]),
        "raw three": request(raw_input_contents=[_RAW] * 3),
        "raw short": request(raw_input_contents=[_RAW[:-1], _RAW]),
        "raw long": request(raw_input_contents=[_RAW + b"x", _RAW]),
        "raw empty": request(raw_input_contents=[b"", b""]),
        "no model": request(model_name=""),
        "unknown model": request("nobody"),
        "spare": request("spare"),
        "broken": request("broken"),
        "version 1": request(model_version="1"),
        "version 9": request(model_version="9"),
        "version text": request(model_version="abc"),
        "version 0": request(model_version="0"),
        "version minus": request(model_version="-1"),
        "id": request(id="seven"),
        "no inputs": request(inputs=[], raw_input_contents=[]),
        "one input": request(inputs=[_tensor()], raw_input_contents=[_RAW]),
        "three inputs": request(inputs=[*_pair(), _tensor("X")], raw_input_contents=[_RAW] * 3),
        "unknown input": request(inputs=_pair(name="X")),
        "input twice": request(inputs=[_tensor(), _tensor()]),
        "no name": request(inputs=_pair(name="")),
        "no datatype": request(inputs=_pair(datatype="")),
        "unknown datatype": request(inputs=_pair(datatype="INT33")),
        "other datatype": request(inputs=_pair(datatype="FP32")),
        "no shape": request(inputs=_pair(shape=[])),
        "shape minus": request(inputs=_pair(shape=[-1, 16])),
        "shape rank 1": request(inputs=_pair(shape=[16])),
        "shape wide": request(inputs=_pair(shape=[1, 17])),
        "shape huge": request(inputs=_pair(shape=[1, 1 << 62])),
        "batch 0": request(inputs=_pair(shape=[0, 16]), raw_input_contents=[b"", _RAW]),
        "batch 9": request(inputs=[_tensor(shape=[9, 16]), _tensor("INPUT1", shape=[9, 16])], raw_input_contents=[_RAW * 9] * 2),
        "batch differs": request(inputs=_pair(shape=[2, 16]), raw_input_contents=[_RAW * 2, _RAW]),
        "one output": request(outputs=[{"name": "OUTPUT1"}]),
        "outputs swapped": request(outputs=[{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]),
        "unknown output": request(outputs=[{"name": "NONE"}]),
        "output twice": request(outputs=[{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]),
        "classes": request(outputs=[{"name": "OUTPUT0", "parameters": {"classification": {"int64_param": 2}}}]),
        "classes text": request(outputs=[{"name": "OUTPUT0", "parameters": {"classification": {"string_param": "2"}}}]),
        "classes 0": request(outputs=[{"name": "OUTPUT0", "parameters": {"classification": {"int64_param": 0}}}]),
        "region unknown": request(inputs=_pair(parameters={"shared_memory_region": {"string_param": "r"}, "shared_memory_byte_size": {"int64_param": 64}}), raw_input_contents=[_RAW]),
        "region no size": request(inputs=_pair(parameters={"shared_memory_region": {"string_param": "r"}}), raw_input_contents=[_RAW]),
        "output region unknown": request(outputs=[{"name": "OUTPUT0", "parameters": {"shared_memory_region": {"string_param": "r"}, "shared_memory_byte_size": {"int64_param": 64}}}]),
        "output parameter unknown": request(outputs=[{"name": "OUTPUT0", "parameters": {"what": {"int64_param": 2}}}]),
        "decoupled": request("repeat", inputs=[{"name": "IN", "datatype": "INT32", "shape": [1]}], raw_input_contents=[b"\2\0\0\0"]),
        "ensemble": request("ensemble"),
        "ensemble one input": request("ensemble", inputs=[_tensor()], raw_input_contents=[_RAW]),
    }  # fmt: skip
    found = [
        unary(f"rpc infer/{name}", "ModelInfer", message) for name, message in requests.items()
    ]
    for how in range(9):
        message = request(
            "fails",
            inputs=[{"name": "IN", "datatype": "INT32", "shape": [1, 1]}],
            raw_input_contents=[pack("INT32", [how])],
        )
        found.append(unary(f"rpc fails/{how}", "ModelInfer", message))
    return found + _types() + _parameters()


def _types() -> list[Case]:
    found: list[Case] = []
    for datatype in DATATYPES:
        values = VALUES.get(datatype, [1, 2, 3])
        outputs = [{"name": f"OUT_{datatype}"}]
        entry: dict[str, Any] = {"name": f"IN_{datatype}", "datatype": datatype, "shape": [3]}
        raw = request(
            "everything",
            inputs=[entry],
            outputs=outputs,
            raw_input_contents=[pack(datatype, values)],
        )
        found.append(unary(f"rpc type/{datatype}/raw", "ModelInfer", raw))
        where = _CONTENTS.get(datatype, "fp32_contents")
        given = [v.encode() for v in values] if datatype == "BYTES" else values
        typed = request(
            "everything",
            inputs=[{**entry, "contents": {where: given}}],
            outputs=outputs,
            raw_input_contents=[],
        )
        found.append(unary(f"rpc type/{datatype}/contents", "ModelInfer", typed))
        empty = request(
            "everything",
            inputs=[{**entry, "shape": [0]}],
            outputs=outputs,
            raw_input_contents=[b""],
        )
        found.append(unary(f"rpc type/{datatype}/empty", "ModelInfer", empty))
        short = request(
            "everything",
            inputs=[entry],
            outputs=outputs,
            raw_input_contents=[pack(datatype, values)[:-1]],
        )
        found.append(unary(f"rpc type/{datatype}/short", "ModelInfer", short))
    for datatype, number in (("INT8", 200), ("UINT8", 300), ("INT16", 1 << 20), ("BOOL", 1)):
        if datatype == "BOOL":
            continue
        entry = {
            "name": f"IN_{datatype}",
            "datatype": datatype,
            "shape": [1],
            "contents": {_CONTENTS[datatype]: [number]},
        }
        message = request(
            "everything",
            inputs=[entry],
            outputs=[{"name": f"OUT_{datatype}"}],
            raw_input_contents=[],
        )
        found.append(unary(f"rpc type/{datatype}/out of range", "ModelInfer", message))
    return found


def _parameters() -> list[Case]:
    values: dict[str, Any] = {
        "priority": {"priority": {"uint64_param": 1}},
        "priority int64": {"priority": {"int64_param": 1}},
        "priority text": {"priority": {"string_param": "1"}},
        "timeout": {"timeout": {"int64_param": 100}},
        "timeout text": {"timeout": {"string_param": "1"}},
        "sequence": {"sequence_id": {"int64_param": 4}},
        "sequence text": {"sequence_id": {"string_param": "four"}},
        "sequence bool": {"sequence_id": {"bool_param": True}},
        "start text": {"sequence_start": {"string_param": "x"}},
        "start": {"sequence_start": {"bool_param": True}},
        "own text": {"mine": {"string_param": "x"}},
        "own number": {"mine": {"int64_param": 7}},
        "own bool": {"mine": {"bool_param": False}},
        "own double": {"mine": {"double_param": 1.5}},
        "own uint64": {"mine": {"uint64_param": 7}},
        "own nothing": {"mine": {}},
        "reserved": {"triton_x": {"bool_param": True}},
        "empty final": {"triton_enable_empty_final_response": {"bool_param": True}},
        "empty final text": {"triton_enable_empty_final_response": {"string_param": "x"}},
        "headers": {"headers": {"string_param": "x"}},
    }
    entry = {"name": "IN", "datatype": "INT32", "shape": [1, 1]}
    return [
        unary(f"rpc parameter/{name}", "ModelInfer",
              request("tells", inputs=[entry], raw_input_contents=[pack("INT32", [1])], parameters=given))
        for name, given in values.items()
    ]  # fmt: skip


def _methods() -> list[Case]:
    found = [
        unary("rpc/ServerLive", "ServerLive"),
        unary("rpc/ServerReady", "ServerReady"),
        unary("rpc/ServerMetadata", "ServerMetadata"),
        unary("rpc/LogSettings", "LogSettings"),
        unary("rpc/TraceSetting", "TraceSetting"),
        unary("rpc/TraceSetting model", "TraceSetting", model_name="add_sub"),
        unary("rpc/TraceSetting nobody", "TraceSetting", model_name="nobody"),
        unary("rpc/ModelStatistics all", "ModelStatistics"),
        unary("rpc/SystemSharedMemoryStatus", "SystemSharedMemoryStatus"),
        unary("rpc/SystemSharedMemoryStatus none", "SystemSharedMemoryStatus", name="none"),
        unary("rpc/SystemSharedMemoryUnregister", "SystemSharedMemoryUnregister", name="none"),
        unary("rpc/SystemSharedMemoryUnregister all", "SystemSharedMemoryUnregister"),
        unary("rpc/SystemSharedMemoryRegister bad key", "SystemSharedMemoryRegister", name="r", key="/none_such", byte_size=64),
        unary("rpc/SystemSharedMemoryRegister no name", "SystemSharedMemoryRegister", key="/none_such", byte_size=64),
        unary("rpc/CudaSharedMemoryStatus", "CudaSharedMemoryStatus"),
        unary("rpc/CudaSharedMemoryStatus none", "CudaSharedMemoryStatus", name="none"),
        unary("rpc/CudaSharedMemoryUnregister", "CudaSharedMemoryUnregister", name="none"),
        unary("rpc/CudaSharedMemoryRegister", "CudaSharedMemoryRegister", name="r", raw_handle=b"x", byte_size=1),
        unary("rpc/RepositoryIndex", "RepositoryIndex"),
        unary("rpc/RepositoryIndex ready", "RepositoryIndex", ready=True),
        unary("rpc/RepositoryIndex repository", "RepositoryIndex", repository_name="x"),
        unary("rpc/RepositoryModelLoad nobody", "RepositoryModelLoad", model_name="nobody"),
        unary("rpc/RepositoryModelLoad no name", "RepositoryModelLoad"),
        unary("rpc/RepositoryModelLoad repository", "RepositoryModelLoad", repository_name="x", model_name="spare"),
        unary("rpc/RepositoryModelLoad broken", "RepositoryModelLoad", model_name="broken"),
        unary("rpc/RepositoryModelLoad config bytes", "RepositoryModelLoad", model_name="spare", parameters={"config": {"bytes_param": b"x"}}),
        unary("rpc/RepositoryModelLoad config bad", "RepositoryModelLoad", model_name="spare", parameters={"config": {"string_param": "{"}}),
        unary("rpc/RepositoryModelLoad file text", "RepositoryModelLoad", model_name="spare", parameters={"file:1/x": {"string_param": "x"}}),
        unary("rpc/RepositoryModelLoad file alone", "RepositoryModelLoad", model_name="spare", parameters={"file:1/x": {"bytes_param": b"x"}}),
        unary("rpc/RepositoryModelLoad unknown", "RepositoryModelLoad", model_name="spare", parameters={"what": {"string_param": "x"}}),
        unary("rpc/RepositoryModelUnload nobody", "RepositoryModelUnload", model_name="nobody"),
        unary("rpc/RepositoryModelUnload repository", "RepositoryModelUnload", repository_name="x", model_name="nobody"),
        unary("rpc/RepositoryModelUnload dependents text", "RepositoryModelUnload", model_name="nobody", parameters={"unload_dependents": {"string_param": "x"}}),
        unary("rpc/RepositoryModelUnload unknown", "RepositoryModelUnload", model_name="nobody", parameters={"what": {"bool_param": True}}),
    ]  # fmt: skip
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        for name, version in (("add_sub", ""), ("add_sub", "1"), ("add_sub", "9"), ("add_sub", "abc"),
                              ("nobody", ""), ("spare", ""), ("broken", ""), ("", ""), ("versions", "2"),
                              ("ensemble", ""), ("accumulate", "")):  # fmt: skip
            found.append(
                unary(f"rpc/{method} {name}:{version}", method, name=name, version=version)
            )
    settings: dict[str, Any] = {
        "info": {"log_info": {"bool_param": True}},
        "info text": {"log_info": {"string_param": "x"}},
        "verbose": {"log_verbose_level": {"uint32_param": 0}},
        "verbose bool": {"log_verbose_level": {"bool_param": True}},
        "format": {"log_format": {"string_param": "default"}},
        "format bad": {"log_format": {"string_param": "x"}},
        "file": {"log_file": {"string_param": "/tmp/x"}},
        "unknown": {"what": {"bool_param": True}},
    }
    found += [
        unary(f"rpc/log {name}", "LogSettings", settings=given) for name, given in settings.items()
    ]
    traces: dict[str, Any] = {
        "rate": {"trace_rate": {"value": ["10"]}},
        "rate two": {"trace_rate": {"value": ["10", "11"]}},
        "rate bad": {"trace_rate": {"value": ["x"]}},
        "rate empty": {"trace_rate": {"value": []}},
        "level": {"trace_level": {"value": ["TIMESTAMPS", "TENSORS"]}},
        "level bad": {"trace_level": {"value": ["WHAT"]}},
        "level empty": {"trace_level": {"value": []}},
        "count": {"trace_count": {"value": ["3"]}},
        "count empty": {"trace_count": {"value": []}},
        "file": {"trace_file": {"value": ["/tmp/x"]}},
        "unknown": {"what": {"value": ["1"]}},
    }
    found += [
        unary(f"rpc/trace {name}", "TraceSetting", settings=given) for name, given in traces.items()
    ]
    return found


def _streams() -> list[Case]:
    def repeat(count: int, **fields: Any) -> Any:
        entry = {"name": "IN", "datatype": "INT32", "shape": [1]}
        return request(
            "repeat", inputs=[entry], raw_input_contents=[pack("INT32", [count])], **fields
        )

    def step(ident: int, value: int, start: bool, end: bool) -> Any:
        entry = {"name": "INPUT", "datatype": "INT32", "shape": [1, 1]}
        given = {"sequence_id": {"int64_param": ident}, "sequence_start": {"bool_param": start},
                 "sequence_end": {"bool_param": end}}  # fmt: skip
        return request(
            "accumulate",
            inputs=[entry],
            raw_input_contents=[pack("INT32", [value])],
            parameters=given,
        )

    strict = (("triton_grpc_error", "true"),)
    empty = {"triton_enable_empty_final_response": {"bool_param": True}}
    streams: dict[str, list[Any]] = {
        "nothing": [],
        "one": [request(id="a")],
        "two": [request(id="a"), request(id="b")],
        "repeat 3": [repeat(3, id="a")],
        "repeat 0": [repeat(0, id="a")],
        "repeat 0 with final": [repeat(0, id="a", parameters=empty)],
        "repeat 2 with final": [repeat(2, id="a", parameters=empty)],
        "repeat fails": [repeat(-1, id="a")],
        "one with final": [request(id="a", parameters=empty)],
        "unknown model": [request("nobody", id="a")],
        "unknown, then right": [request("nobody", id="a"), request(id="b")],
        "wrong shape": [request(id="a", inputs=_pair(shape=[1, 17]))],
        "no contents": [request(id="a", raw_input_contents=[])],
        "sequence": [step(31, 1, True, False), step(31, 2, False, False), step(31, 3, False, True)],
        "sequence without start": [step(32, 1, False, False)],
    }

    def send(requests: list[Any], metadata: Any = ()) -> Any:
        def stream(peer: Peer) -> list[Observed]:
            return peer.stream(requests, metadata)

        return stream

    found = [Case(f"stream/{name}", send(requests)) for name, requests in streams.items()]
    found += [
        Case(f"strict stream/{name}", send(streams[name], strict))
        for name in (
            "one",
            "unknown model",
            "unknown, then right",
            "wrong shape",
            "repeat 3",
            "repeat fails",
        )
    ]
    return found


def cases() -> list[Case]:
    """All of them."""
    return [*_infer(), *_methods(), *_streams()]
