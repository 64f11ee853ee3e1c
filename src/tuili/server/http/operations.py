"""What the routes do, but for inference: one function from a `Call` to a `Reply` each."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Literal

import orjson

from tuili.errors import InvalidArgument, Unsupported
from tuili.server.http.call import Call
from tuili.server.http.json_text import NotPlain
from tuili.server.http.openapi import openapi_document
from tuili.server.http.predict_about import (
    classify_or_regress,
    predict_metadata,
    predict_models,
    predict_status,
)
from tuili.server.http.reply import TEXT, Reply, error_reply, json_reply
from tuili.server.http.rollouts import ROLLOUT_OPERATIONS
from tuili.server.protocol.parameters import wrong_type
from tuili.server.readiness import Verdict, then
from tuili.server.steps import Steps


def server_metadata(call: Call) -> Reply:
    """Name, version and extensions of the server."""
    return json_reply(call.dataplane.server_metadata())


# A reply, the work that makes one, or a promise of either.
Result = Reply | Steps[Reply] | Awaitable["Reply | Steps[Reply]"]
_TURN_MODELS: Final = 256  # told of before others have their turn
_NOT_READY: Final = "Model version not ready"


def server_live(call: Call) -> Reply:
    """Whether the process works."""
    return _healthy(call, {"live": True}) if call.dataplane.server_live() else Reply(400, (), TEXT)


def server_alive(call: Call) -> Reply:
    """The liveness of KServe V1, whose servers have it at their root."""
    if not call.limits.health_in_body:
        return error_reply(404, "Not Found")
    return _healthy(call, {"status": "alive"})


def server_ready(call: Call) -> Reply | Awaitable[Reply]:
    """Whether requests should be sent here, and why not otherwise."""

    def reply(found: Verdict) -> Reply:
        if found.ready:
            return _healthy(call, {"ready": True})
        return error_reply(400, found.why or "not ready")

    return then(call.dataplane.server_verdict(), reply)


def _healthy(call: Call, told: dict[str, Any]) -> Reply:
    """All is well: in words where clients may read them, by the status alone as in Triton."""
    return json_reply(told) if call.limits.health_in_body else Reply(200, (), TEXT)


def model_metadata(call: Call) -> Reply | Awaitable[Reply]:
    """Inputs, outputs and versions of a model."""
    dataplane, model, version = call.dataplane, call.match.model, call.match.version
    return dataplane.when_live(model, lambda: json_reply(dataplane.model_metadata(model, version)))


def model_ready(call: Call) -> Reply | Awaitable[Reply]:
    """Whether a model version answers."""

    def reply(found: Verdict) -> Reply:
        if found.ready:
            return _healthy(call, {"name": call.match.model, "ready": True})
        return error_reply(400, f"{_NOT_READY}: {found.why}" if found.why else _NOT_READY)

    return then(call.dataplane.model_verdict(call.match.model, call.match.version), reply)


def model_config(call: Call) -> Reply | Awaitable[Reply]:
    """The configuration of a model, defaults filled in."""
    dataplane, model, version = call.dataplane, call.match.model, call.match.version
    return dataplane.when_live(model, lambda: json_reply(dataplane.model_config(model, version)))


def model_statistics(call: Call) -> Result:
    """Counts and durations of one model, or of all; the protocol has 400 for an unknown one."""
    dataplane, model, version = call.dataplane, call.match.model, call.match.version
    return dataplane.counted(lambda: _write(dataplane.each_statistics(model, version)))


def _write(statistics: Iterator[Any]) -> Steps[Reply]:
    parts: list[bytes] = []
    for at, each in enumerate(statistics):
        if at and not at % _TURN_MODELS:
            yield
        parts.append(orjson.dumps(each))
    return Reply(200, (b'{"model_stats":[%b]}' % b",".join(parts),))


def trace_setting(call: Call) -> Reply:
    """Read or merge the trace settings of a model or of the server."""
    if call.head.method == "GET":
        return json_reply(call.dataplane.trace_settings(call.match.model))
    return json_reply(call.dataplane.update_trace_settings(call.json(), call.match.model))


def logging(call: Call) -> Reply:
    """Read or merge the log settings."""
    if call.head.method == "GET":
        return json_reply(call.dataplane.log_settings())
    return json_reply(call.dataplane.update_log_settings(call.json()))


def repository_index(call: Call) -> Reply:
    """Every model of the repository with its state."""
    if call.match.repository:
        raise Unsupported("'repository_name' specification is not supported")
    try:
        ready = call.json().get("ready", False)
    except NotPlain:
        ready = None  # whatever it is, as in Triton
    if not isinstance(ready, bool):
        raise InvalidArgument("Invalid value for 'ready': expected a boolean")
    return json_reply(call.dataplane.repository_index(ready))


async def repository_load(call: Call) -> Reply:
    """Load or reload a model, perhaps with another configuration or other files."""
    if call.match.repository:
        raise Unsupported("'repository_name' specification is not supported")
    parameters = _object(call.json(), "parameters")
    decoded = {key: _load_parameter(key, value) for key, value in parameters.items()}
    await call.dataplane.repository_load(call.match.model, decoded or None)
    return Reply()


def _load_parameter(key: str, value: Any) -> Any:
    """A checked parameter of a load request; files come in base64."""
    if not isinstance(value, str):
        raise wrong_type(key, value, "string")
    if key == "config":
        return value
    if not key.startswith("file:"):
        raise InvalidArgument(
            f"unknown load parameter '{key}', expected 'config' or 'file:<version>/<name>'"
        )
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise InvalidArgument(f"load parameter '{key}' is not base64: {error}") from None


async def repository_unload(call: Call) -> Reply:
    """Unload a model."""
    if call.match.repository:
        raise Unsupported("'repository_name' specification is not supported")
    dependents = _object(call.json(), "parameters").get("unload_dependents", False)
    if not isinstance(dependents, bool):
        raise wrong_type("unload_dependents", dependents, "boolean")
    await call.dataplane.repository_unload(call.match.model, dependents)
    return Reply()


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"Unable to parse '{key}': expected an object")
    return value


def openapi(call: Call) -> Reply:
    """The description of this interface."""
    return json_reply(openapi_document())


def _shm_status(kind: Literal["system", "cuda"]) -> Operation:
    def status(call: Call) -> Reply:
        return json_reply(call.dataplane.shared_memory_status(kind, call.match.region))

    return status


def _shm_register(kind: Literal["system", "cuda"]) -> Operation:
    def register(call: Call) -> Reply:
        if not call.match.region:
            raise InvalidArgument(
                f"'region name' is necessary to register {kind} shared memory region"
            )
        call.dataplane.shared_memory_register(kind, call.match.region, _region(kind, call.json()))
        return Reply()

    return register


def _region(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    """The checked body of a register request."""
    needed = ("key", "byte_size") if kind == "system" else ("raw_handle", "byte_size")
    for field in needed:
        if field not in document:
            raise InvalidArgument(f"Shared memory register request has no '{field}' field")
    if kind == "system" and not isinstance(document["key"], str):
        raise wrong_type("key", document["key"], "string")
    for field in ("byte_size", "offset"):
        value = document.setdefault(field, 0)
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise wrong_type(field, value, "unsigned-integer")
    return document


def _shm_unregister(kind: Literal["system", "cuda"]) -> Operation:
    def unregister(call: Call) -> Reply:
        call.dataplane.shared_memory_unregister(kind, call.match.region)
        return Reply()

    return unregister


Operation = Callable[[Call], "Result"]

OPERATIONS: Final[dict[str, Operation]] = {
    "server_metadata": server_metadata,
    "server_live": server_live,
    "server_alive": server_alive,
    "server_ready": server_ready,
    "all_statistics": model_statistics,
    "model_metadata": model_metadata,
    "model_ready": model_ready,
    "model_config": model_config,
    "model_statistics": model_statistics,
    "trace_setting": trace_setting,
    "logging": logging,
    "predict_models": predict_models,
    "predict_status": predict_status,
    "classify": classify_or_regress,
    "regress": classify_or_regress,
    "predict_metadata": predict_metadata,
    "repository_index": repository_index,
    "repository_load": repository_load,
    "repository_unload": repository_unload,
    "system_shm_status": _shm_status("system"),
    "system_shm_register": _shm_register("system"),
    "system_shm_unregister": _shm_unregister("system"),
    "cuda_shm_status": _shm_status("cuda"),
    "cuda_shm_register": _shm_register("cuda"),
    "cuda_shm_unregister": _shm_unregister("cuda"),
    "openapi": openapi,
    **ROLLOUT_OPERATIONS,
}
