"""Everything over HTTP that is not inference: repository, shared memory, settings, generate."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import base64
import json
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from tests.conformance.triton.differential.models import ADD_SUB, MODELS
from tests.conformance.triton.differential.wire import Case, Observed, Peer, http

Json = dict[str, Any]

_REPOSITORY = "/v2/repository"


def _load(model: str, parameters: Any = None) -> tuple[str, str, Any]:
    body = None if parameters is None else {"parameters": parameters}
    return "POST", f"{_REPOSITORY}/models/{model}/load", body


def _unload(model: str, parameters: Any = None) -> tuple[str, str, Any]:
    body = None if parameters is None else {"parameters": parameters}
    return "POST", f"{_REPOSITORY}/models/{model}/unload", body


def _infer(model: str = "spare") -> tuple[str, str, Json]:
    entries = [
        {"name": name, "shape": [1, 16], "datatype": "INT32", "data": list(range(16))}
        for name in ("INPUT0", "INPUT1")
    ]
    return "POST", f"/v2/models/{model}/infer", {"inputs": entries}


def _scenario(*steps: tuple[Any, ...]) -> Any:
    """Requests one after the other; an unload is waited for, as both servers do it behind."""

    def send(peer: Peer) -> list[Observed]:
        found: list[Observed] = []
        for step in steps:
            found.append(peer.http(*step))
            if step[1].endswith("/unload"):
                _wait_gone(peer, step[1].split("/")[-2])
        return found

    return send


def _wait_gone(peer: Peer, model: str) -> None:
    from time import sleep

    for _ in range(100):
        answer = peer.http("POST", f"{_REPOSITORY}/index", {})
        entries = [each for each in answer.body if each["name"] == model]
        if all(each.get("state", "UNAVAILABLE") == "UNAVAILABLE" for each in entries):
            return
        sleep(0.05)


def _repository() -> list[Case]:
    config = json.dumps(
        {
            "name": "spare", "backend": "python", "max_batch_size": 2,
            "input": [{"name": n, "data_type": "TYPE_INT32", "dims": [16]} for n in ("INPUT0", "INPUT1")],
            "output": [{"name": n, "data_type": "TYPE_INT32", "dims": [16]} for n in ("OUTPUT0", "OUTPUT1")],
        }
    )  # fmt: skip
    code = base64.b64encode(
        b"import numpy as np\nimport triton_python_backend_utils as pb_utils\n" + ADD_SUB.encode()
    ).decode()
    index = ("POST", f"{_REPOSITORY}/index", {})
    ready = ("GET", "/v2/models/spare/ready")
    shown = ("GET", "/v2/models/spare/config")
    assert "spare" in MODELS
    return [
        http("index/all", *index),
        http("index/empty body", "POST", f"{_REPOSITORY}/index"),
        http("index/ready", "POST", f"{_REPOSITORY}/index", {"ready": True}),
        http("index/ready text", "POST", f"{_REPOSITORY}/index", {"ready": "yes"}),
        http("index/bad json", "POST", f"{_REPOSITORY}/index", "{"),
        http("index/repository", "POST", f"{_REPOSITORY}/main/index", {}),
        http("load/unknown", *_load("nobody")),
        http("load/name with dots", *_load("..")),
        http("load/broken", *_load("broken")),
        http("load/unloadable", *_load("unloadable")),
        http("load/repository", "POST", f"{_REPOSITORY}/main/models/spare/load", {}),
        http("load/bad json", "POST", f"{_REPOSITORY}/models/spare/load", "{"),
        http("load/parameters list", *_load("spare", [])),
        http("load/parameter unknown", *_load("spare", {"what": "x"})),
        http("load/config number", *_load("spare", {"config": 1})),
        http("load/config bad", *_load("spare", {"config": "{"})),
        http("load/config empty", *_load("spare", {"config": ""})),
        http("load/config unknown field", *_load("spare", {"config": '{"nothing": 1}'})),
        http("load/file without config", *_load("spare", {"file:1/model.py": code})),
        http("load/file not base64", *_load("spare", {"config": config, "file:1/model.py": "###"})),
        http("load/file number", *_load("spare", {"config": config, "file:1/model.py": 1})),
        http(
            "load/file without version", *_load("spare", {"config": config, "file:model.py": code})
        ),
        http("load/file outside", *_load("spare", {"config": config, "file:../../x": code})),
        Case(
            "load/then infer",
            _scenario(_load("spare"), ready, _infer(), _unload("spare"), ready, _infer()),
        ),
        Case("load/twice", _scenario(_load("spare"), _load("spare"), ready, _unload("spare"))),
        Case(
            "load/config",
            _scenario(_load("spare", {"config": config}), shown, _infer(), _unload("spare")),
        ),
        Case(
            "load/files",
            _scenario(
                _load("spare", {"config": config, "file:7/model.py": code}),
                ("GET", "/v2/models/spare"),
                _infer(),
                _unload("spare"),
            ),
        ),
        Case("index/after unload", _scenario(_load("spare"), _unload("spare"), index)),
        http("unload/unknown", *_unload("nobody")),
        http("unload/never loaded", *_unload("versions_")),
        http("unload/dependents text", *_unload("spare", {"unload_dependents": "yes"})),
        http("unload/dependents", *_unload("spare", {"unload_dependents": True})),
        http("unload/parameter unknown", *_unload("spare", {"what": 1})),
        http("unload/bad json", "POST", f"{_REPOSITORY}/models/spare/unload", "{"),
    ]


def _settings() -> list[Case]:
    logs: dict[str, Any] = {
        "info off": {"log_info": False},
        "info on": {"log_info": True},
        "info text": {"log_info": "no"},
        "warning off": {"log_warning": False},
        "warning on": {"log_warning": True},
        "error off": {"log_error": False},
        "error on": {"log_error": True},
        "verbose 1": {"log_verbose_level": 1},
        "verbose 0": {"log_verbose_level": 0},
        "verbose minus": {"log_verbose_level": -1},
        "verbose text": {"log_verbose_level": "1"},
        "format ISO": {"log_format": "ISO8601"},
        "format default": {"log_format": "default"},
        "format other": {"log_format": "xml"},
        "format number": {"log_format": 1},
        "file": {"log_file": "/tmp/x"},
        "file number": {"log_file": 1},
        "unknown": {"log_what": 1},
        "plural": {"log_warnings": True},
        "empty": {},
        "list": [],
    }
    traces: dict[str, Any] = {
        "level": {"trace_level": ["TIMESTAMPS"]},
        "level both": {"trace_level": ["TIMESTAMPS", "TENSORS"]},
        "level off": {"trace_level": ["OFF"]},
        "level text": {"trace_level": "TIMESTAMPS"},
        "level unknown": {"trace_level": ["WHAT"]},
        "level number": {"trace_level": [1]},
        "level min": {"trace_level": ["MIN"]},
        "level null": {"trace_level": None},
        "rate": {"trace_rate": "10"},
        "rate number": {"trace_rate": 10},
        "rate bad": {"trace_rate": "x"},
        "rate minus": {"trace_rate": "-1"},
        "rate null": {"trace_rate": None},
        "count": {"trace_count": "5"},
        "count minus 1": {"trace_count": "-1"},
        "count minus 2": {"trace_count": "-2"},
        "count null": {"trace_count": None},
        "frequency": {"log_frequency": "3"},
        "frequency bad": {"log_frequency": "x"},
        "frequency null": {"log_frequency": None},
        "file": {"trace_file": "/tmp/other"},
        "file null": {"trace_file": None},
        "mode": {"trace_mode": "triton"},
        "unknown": {"trace_what": "1"},
        "empty": {},
    }
    found = [http(f"log/{name}", "POST", "/v2/logging", body) for name, body in logs.items()]
    found.append(http("log/bad json", "POST", "/v2/logging", "{"))
    found.append(http("log/after", "GET", "/v2/logging"))
    for place, path in (
        ("all", "/v2/trace/setting"),
        ("model", "/v2/models/add_sub/trace/setting"),
    ):
        found += [
            http(f"trace/{place}/{name}", "POST", path, body) for name, body in traces.items()
        ]
        found.append(http(f"trace/{place}/after", "GET", path))
    found.append(
        http("trace/nobody", "POST", "/v2/models/nobody/trace/setting", {"trace_rate": "1"})
    )
    found.append(http("trace/bad json", "POST", "/v2/trace/setting", "{"))
    return found


_KEY = "tuili_differential"


def _shared(name: str, *steps: tuple[Any, ...]) -> Case:
    """Steps while a region of 256 bytes, 0 1 2 ... as INT32, is there."""

    def send(peer: Peer) -> list[Observed]:
        memory = SharedMemory(_KEY, create=True, size=256)
        try:
            memory.buf[:] = b"".join(at.to_bytes(4, "little") for at in range(64))
            found = [peer.http(*step) for step in steps]
            peer.http("POST", "/v2/systemsharedmemory/unregister")
            found.append(Observed("memory", body=bytes(memory.buf).hex()))
            return found
        finally:
            memory.close()
            memory.unlink()

    return Case(f"shm/{name}", send)


def _register(region: str = "r", **fields: Any) -> tuple[str, str, Json]:
    body = {"key": f"/{_KEY}", "offset": 0, "byte_size": 256} | fields
    given = {key: value for key, value in body.items() if value is not None}
    return "POST", f"/v2/systemsharedmemory/region/{region}/register", given


def _from_region(outputs: list[Json] | None = None, **parameters: Any) -> tuple[str, str, Json]:
    entries = []
    for at, name in enumerate(("INPUT0", "INPUT1")):
        given = {
            "shared_memory_region": "r",
            "shared_memory_byte_size": 64,
            "shared_memory_offset": 64 * at,
        }
        entries.append({"name": name, "shape": [1, 16], "datatype": "INT32", "parameters": given})
    entries[0]["parameters"] |= parameters
    body: Json = {"inputs": entries}
    if outputs is not None:
        body["outputs"] = outputs
    return "POST", "/v2/models/add_sub/infer", body


def _to_region(name: str, size: int = 64, **more: Any) -> Json:
    given = {"shared_memory_region": "r", "shared_memory_byte_size": size, **more}
    return {"name": name, "parameters": given}


def _memory() -> list[Case]:
    status = ("GET", "/v2/systemsharedmemory/status")
    one = ("GET", "/v2/systemsharedmemory/region/r/status")
    gone = ("POST", "/v2/systemsharedmemory/region/r/unregister")
    ok = _register()
    found = [
        _shared("register", ok, status, one, gone, status, one),
        _shared("twice", ok, ok),
        _shared("two regions", ok, _register("s", offset=64, byte_size=64), status),
        _shared("no key", _register(key=None)),
        _shared("key number", _register(key=1)),
        _shared("key unknown", _register(key="/tuili_differential_none")),
        _shared("key empty", _register(key="")),
        _shared("no size", _register(byte_size=None)),
        _shared("size text", _register(byte_size="256")),
        _shared("size 0", _register(byte_size=0)),
        _shared("size beyond", _register(byte_size=1 << 20)),
        _shared("offset beyond", _register(offset=1 << 20)),
        _shared("offset and size beyond", _register(offset=128, byte_size=256)),
        _shared("size minus", _register(byte_size=-1)),
        _shared("offset text", _register(offset="1")),
        _shared("bad json", ("POST", "/v2/systemsharedmemory/region/r/register", "{")),
        _shared("no region", ("POST", "/v2/systemsharedmemory/register", ok[2])),
        _shared("unregister unknown", gone),
        _shared("unregister all", ok, ("POST", "/v2/systemsharedmemory/unregister"), status),
        _shared("in", ok, _from_region()),
        _shared("in size short", ok, _from_region(shared_memory_byte_size=60)),
        _shared("in size long", ok, _from_region(shared_memory_byte_size=68)),
        _shared("in beyond", ok, _from_region(shared_memory_offset=250)),
        _shared("in offset huge", ok, _from_region(shared_memory_offset=1 << 62)),
        _shared("in offset text", ok, _from_region(shared_memory_offset="x")),
        _shared("in not registered", _from_region()),
        _shared("out", ok, _from_region([_to_region("OUTPUT0", shared_memory_offset=128), _to_region("OUTPUT1", shared_memory_offset=192)])),
        _shared("out one", ok, _from_region([_to_region("OUTPUT0", shared_memory_offset=128), {"name": "OUTPUT1"}])),
        _shared("out small", ok, _from_region([_to_region("OUTPUT0", 32, shared_memory_offset=128)])),
        _shared("out large", ok, _from_region([_to_region("OUTPUT0", 128, shared_memory_offset=128)])),
        _shared("out beyond", ok, _from_region([_to_region("OUTPUT0", 64, shared_memory_offset=250)])),
        _shared("out unknown", ok, _from_region([{"name": "OUTPUT0", "parameters": {"shared_memory_region": "q", "shared_memory_byte_size": 64}}])),
        _shared("out no size", ok, _from_region([{"name": "OUTPUT0", "parameters": {"shared_memory_region": "r"}}])),
        _shared("out and binary", ok, _from_region([_to_region("OUTPUT0", shared_memory_offset=128, binary_data=True)])),
        http("cuda/status", "GET", "/v2/cudasharedmemory/status"),
        http("cuda/region status", "GET", "/v2/cudasharedmemory/region/r/status"),
        http("cuda/register", "POST", "/v2/cudasharedmemory/region/r/register", {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 4}),
        http("cuda/unregister", "POST", "/v2/cudasharedmemory/region/r/unregister"),
        http("cuda/unregister all", "POST", "/v2/cudasharedmemory/unregister"),
    ]  # fmt: skip
    # The memory is ours: the tracker of this process must not remove what the servers opened.
    assert resource_tracker
    return found


def _generate() -> list[Case]:
    bodies: dict[str, Any] = {
        "prompt": {"PROMPT": "hi"},
        "prompt list": {"PROMPT": ["hi"]},
        "prompt nested": {"PROMPT": [["hi"]]},
        "prompt two": {"PROMPT": ["a", "b"]},
        "prompt number": {"PROMPT": 1},
        "prompt null": {"PROMPT": None},
        "prompt object": {"PROMPT": {}},
        "parameters": {"PROMPT": "hi", "parameters": {"stream": True, "n": 3}},
        "own key": {"PROMPT": "hi", "mine": 1},
        "own float": {"PROMPT": "hi", "mine": 1.5},
        "own list": {"PROMPT": "hi", "mine": [1]},
        "own null": {"PROMPT": "hi", "mine": None},
        "id": {"id": "7", "PROMPT": "hi"},
        "id number": {"id": 7, "PROMPT": "hi"},
        "repetition 0": {"PROMPT": "hi", "REPETITION": 0},
        "repetition 2": {"PROMPT": "hi", "REPETITION": 2},
        "repetition text": {"PROMPT": "hi", "REPETITION": "2"},
        "nested input": {"parameters": {"PROMPT": "hi"}},
        "input twice": {"PROMPT": "hi", "parameters": {"PROMPT": "ho"}},
        "parameters text": {"PROMPT": "hi", "parameters": "x"},
        "no prompt": {},
        "no object": [],
        "bad json": "{",
        "empty": b"",
    }
    found = [
        http(f"{how}/{name}", "POST", f"/v2/models/writer/{how}", body)
        for how in ("generate", "generate_stream")
        for name, body in bodies.items()
    ]
    for how in ("generate", "generate_stream"):
        found.append(http(f"{how}/nobody", "POST", f"/v2/models/nobody/{how}", {"PROMPT": "x"}))
        found.append(
            http(f"{how}/version", "POST", f"/v2/models/writer/versions/1/{how}", {"PROMPT": "x"})
        )
        found.append(http(f"{how}/other model", "POST", f"/v2/models/text/{how}", {"IN": "x"}))
        found.append(
            http(f"{how}/numbers", "POST", f"/v2/models/matrix/{how}", {"IN": [1, 2, 3, 4, 5, 6]})
        )
        found.append(
            http(f"{how}/numbers misfit", "POST", f"/v2/models/matrix/{how}", {"IN": [1, 2]})
        )
        found.append(http(f"{how}/error", "POST", f"/v2/models/fails/{how}", {"IN": 2}))
        found.append(
            http(
                f"{how}/pair",
                "POST",
                f"/v2/models/add_sub/{how}",
                {"INPUT0": list(range(16)), "INPUT1": list(range(16))},
            )
        )
    return found


def cases() -> list[Case]:
    """All of them."""
    return [*_generate(), *_settings(), *_memory(), *_repository()]
