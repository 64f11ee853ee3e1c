"""What the methods do, but for inference: one function each, from request message to response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal

from google.protobuf.json_format import ParseDict, ParseError

from tuili.errors import InternalError, InvalidArgument, NotFound, Unsupported
from tuili.server.dataplane import DataPlane, Json
from tuili.server.grpc.schema import HEALTH_V1, INFERENCE
from tuili.server.readiness import Verdict, then
from tuili.server.steps import Steps

SERVICE_NAME: Final = "inference.GRPCInferenceService"
HEALTH_NAME: Final = "grpc.health.v1.Health"

Message = Any  # the classes are made at run time
# A response, the work that makes one, or a promise of either.
Result = Message | Steps[Message] | Awaitable["Message | Steps[Message]"]
Operation = Callable[[DataPlane, Message], Result]
_TURN_ENTRIES: Final = 32
_Index: Final = INFERENCE["RepositoryIndexResponse.ModelIndex"]


def _fill(name: str, value: Json) -> Message:
    """The response message `name` from the data plane's JSON."""
    try:
        return ParseDict(value, INFERENCE[name](), ignore_unknown_fields=True)
    except ParseError as error:
        raise InternalError(f"the answer does not fit {name}: {error}") from error


def _server_live(dataplane: DataPlane, request: Message) -> Message:
    return INFERENCE["ServerLiveResponse"](live=dataplane.server_live())


def _server_ready(dataplane: DataPlane, request: Message) -> Message | Awaitable[Message]:
    def answer(found: Verdict) -> Message:
        return INFERENCE["ServerReadyResponse"](ready=found.ready)

    return then(dataplane.server_verdict(), answer)


def _model_ready(dataplane: DataPlane, request: Message) -> Message | Awaitable[Message]:
    def answer(found: Verdict) -> Message:
        return INFERENCE["ModelReadyResponse"](ready=found.ready)

    return then(dataplane.model_verdict(request.name, request.version), answer)


def _server_metadata(dataplane: DataPlane, request: Message) -> Message:
    return _fill("ServerMetadataResponse", dataplane.server_metadata())


def _model_metadata(dataplane: DataPlane, request: Message) -> Message | Awaitable[Message]:
    def answer() -> Message:
        found = dataplane.model_metadata(request.name, request.version)
        return _fill("ModelMetadataResponse", found)

    return dataplane.when_live(request.name, answer)


def _model_config(dataplane: DataPlane, request: Message) -> Message | Awaitable[Message]:
    def answer() -> Message:
        found = dataplane.model_config(request.name, request.version)
        return _fill("ModelConfigResponse", {"config": found})

    return dataplane.when_live(request.name, answer)


def _model_statistics(dataplane: DataPlane, request: Message) -> Result:
    def answer() -> Steps[Message]:
        return _in_parts(
            "ModelStatisticsResponse",
            "model_stats",
            dataplane.each_statistics(request.name, request.version),
        )

    return dataplane.counted(answer)


def _in_parts(name: str, field: str, entries: Iterable[Json]) -> Steps[Message]:
    """As `_fill` of a list that may be long, with turns for others."""
    response = INFERENCE[name]()
    for at, entry in enumerate(entries):
        if at and not at % _TURN_ENTRIES:
            yield
        response.MergeFrom(_fill(name, {field: [entry]}))
    return response


def _repository_index(dataplane: DataPlane, request: Message) -> Message:
    _only_repository(request)
    models = [_Index(**each) for each in dataplane.repository_index(request.ready)]
    return INFERENCE["RepositoryIndexResponse"](models=models)


def _only_repository(request: Message) -> None:
    if request.repository_name:
        raise Unsupported("'repository_name' specification is not supported")


async def _repository_load(dataplane: DataPlane, request: Message) -> Message:
    _only_repository(request)
    parameters: dict[str, Any] = {}
    for key, value in request.parameters.items():
        kind = "string_param" if key == "config" else "bytes_param"
        if key != "config" and not key.startswith("file:"):
            raise InvalidArgument(
                f"unrecognized load parameter '{key}', expected 'config' or 'file:<version>/<name>'"
            )
        if value.WhichOneof("parameter_choice") != kind:
            raise InvalidArgument(f"invalid value type for load parameter '{key}', expected {kind}")
        parameters[key] = getattr(value, kind)
    await dataplane.repository_load(request.model_name, parameters or None)
    return INFERENCE["RepositoryModelLoadResponse"]()


async def _repository_unload(dataplane: DataPlane, request: Message) -> Message:
    _only_repository(request)
    dependents = False
    value = request.parameters.get("unload_dependents")
    if value is not None:
        if value.WhichOneof("parameter_choice") != "bool_param":
            raise InvalidArgument(
                "invalid value type for 'unload_dependents' parameter, expected bool_param"
            )
        dependents = value.bool_param
    await dataplane.repository_unload(request.model_name, dependents)
    return INFERENCE["RepositoryModelUnloadResponse"]()


def _shm_status(kind: Literal["system", "cuda"]) -> Operation:
    name = f"{kind.capitalize()}SharedMemoryStatusResponse"

    def status(dataplane: DataPlane, request: Message) -> Message:
        regions = dataplane.shared_memory_status(kind, request.name)
        return _fill(name, {"regions": {str(region["name"]): region for region in regions}})

    return status


def _system_register(dataplane: DataPlane, request: Message) -> Message:
    dataplane.shared_memory_register(
        "system",
        request.name,
        {"key": request.key, "offset": request.offset, "byte_size": request.byte_size},
    )
    return INFERENCE["SystemSharedMemoryRegisterResponse"]()


def _cuda_register(dataplane: DataPlane, request: Message) -> Message:
    dataplane.shared_memory_register(
        "cuda",
        request.name,
        {
            "raw_handle": request.raw_handle,
            "device_id": request.device_id,
            "byte_size": request.byte_size,
        },
    )
    return INFERENCE["CudaSharedMemoryRegisterResponse"]()


def _shm_unregister(kind: Literal["system", "cuda"]) -> Operation:
    name = f"{kind.capitalize()}SharedMemoryUnregisterResponse"

    def unregister(dataplane: DataPlane, request: Message) -> Message:
        dataplane.shared_memory_unregister(kind, request.name)
        return INFERENCE[name]()

    return unregister


def _trace_setting(dataplane: DataPlane, request: Message) -> Message:
    """An empty value clears a setting; only the levels may be several."""
    wanted: Json = {}
    for key, setting in request.settings.items():
        values = list(setting.value)
        single = len(values) == 1 and key != "trace_level"
        wanted[key] = None if not values else values[0] if single else values
    if wanted:
        settings = dataplane.update_trace_settings(wanted, request.model_name)
    else:
        settings = dataplane.trace_settings(request.model_name)
    response = INFERENCE["TraceSettingResponse"]()
    for key, value in settings.items():
        items = value if isinstance(value, list) else [value]
        response.settings[key].value.extend(str(item) for item in items)
    return response


def _log_settings(dataplane: DataPlane, request: Message) -> Message:
    wanted: Json = {}
    for key, setting in request.settings.items():
        kind = setting.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidArgument(f"log setting '{key}' has no value")
        wanted[key] = getattr(setting, kind)
    settings = dataplane.update_log_settings(wanted) if wanted else dataplane.log_settings()
    response = INFERENCE["LogSettingsResponse"]()
    for key, value in settings.items():
        if isinstance(value, bool):
            response.settings[key].bool_param = value
        elif isinstance(value, int):
            response.settings[key].uint32_param = value
        else:
            response.settings[key].string_param = str(value)
    return response


def health_check(dataplane: DataPlane, request: Message) -> Message | Awaitable[Message]:
    if request.service not in ("", SERVICE_NAME):
        raise NotFound(f"unknown service '{request.service}', expected '' or '{SERVICE_NAME}'")

    def answer(found: Verdict) -> Message:
        status = "SERVING" if found.ready else "NOT_SERVING"
        return HEALTH_V1["HealthCheckResponse"](status=status)

    return then(dataplane.server_verdict(), answer)


OPERATIONS: Final[dict[str, Operation]] = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
    "ModelConfig": _model_config,
    "ModelStatistics": _model_statistics,
    "RepositoryIndex": _repository_index,
    "RepositoryModelLoad": _repository_load,
    "RepositoryModelUnload": _repository_unload,
    "SystemSharedMemoryStatus": _shm_status("system"),
    "SystemSharedMemoryRegister": _system_register,
    "SystemSharedMemoryUnregister": _shm_unregister("system"),
    "CudaSharedMemoryStatus": _shm_status("cuda"),
    "CudaSharedMemoryRegister": _cuda_register,
    "CudaSharedMemoryUnregister": _shm_unregister("cuda"),
    "TraceSetting": _trace_setting,
    "LogSettings": _log_settings,
}
