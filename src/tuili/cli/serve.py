"""`tuili serve`: a model repository behind HTTP, gRPC and Prometheus endpoints."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tuili.cli.serve_options import (
    MOST_PORT,
    AccessLog,
    AllowClientShm,
    AllowWebhook,
    BusyPollUs,
    Cache,
    Compat,
    Consume,
    ControlMode,
    DrainDelay,
    ExitTimeout,
    ForwardPattern,
    Frontends,
    GrpcImpl,
    Isolation,
    JobsDir,
    LoadModel,
    LogLevel,
    MaxInputSize,
    MemoryBudget,
    ModelNamespacing,
    OnnxExecutor,
    OverloadStatus,
    PollInterval,
    RateLimit,
    RateLimitResource,
    Record,
    Repositories,
    RepositoryConfig,
    RequestMemory,
    RequireSignature,
    ResponseCacheSize,
    ResponseCacheTimeout,
    ResponseCacheTtl,
    ResponseCacheUrl,
    Restricted,
    Settle,
    State,
    StrictReadiness,
    Threads,
    TlsCertificate,
    TlsClientCa,
    TlsKey,
    TlsProtocols,
    TraceConfig,
)
from tuili.cli.serve_places import places
from tuili.errors import ModelWarning

if TYPE_CHECKING:
    from tuili.server.main import Running
    from tuili.server.options import ServerOptions


def serve(
    repository: Repositories,
    model_namespacing: ModelNamespacing = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[
        int, typer.Option(help="HTTP; 0 any free port, -1 none.", min=-1, max=MOST_PORT)
    ] = 8000,
    grpc_port: Annotated[
        int, typer.Option(help="gRPC; 0 any free port, -1 none.", min=-1, max=MOST_PORT)
    ] = 8001,
    metrics_port: Annotated[
        int, typer.Option(help="Metrics; 0 any, -1 none.", min=-1, max=MOST_PORT)
    ] = 8002,
    model_control_mode: ControlMode = "none",
    load_model: LoadModel = None,
    memory_budget_mb: MemoryBudget = 0,
    poll_interval: PollInterval = 15.0,
    settle: Settle = 1.0,
    threads: Threads = 0,
    onnx_executor: OnnxExecutor = "auto",
    isolation: Isolation = "auto",
    exit_on_error: Annotated[bool, typer.Option(help="Stop when a model does not load.")] = True,
    strict_readiness: StrictReadiness = True,
    exit_timeout: ExitTimeout = 30.0,
    drain_delay: DrainDelay = 0.0,
    allow_client_shm: AllowClientShm = False,
    max_input_size: MaxInputSize = 1 << 26,
    request_memory_mb: RequestMemory = 0,
    grpc_impl: GrpcImpl = "native",
    compat: Compat = "tuili",
    overload_status: OverloadStatus = 503,
    rate_limit: RateLimit = "off",
    rate_limit_resource: RateLimitResource = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    tls_protocols: TlsProtocols = "both",
    http_restricted_api: Restricted = None,
    grpc_restricted_protocol: Restricted = None,
    http_header_forward_pattern: ForwardPattern = "",
    grpc_header_forward_pattern: ForwardPattern = "",
    busy_poll_us: BusyPollUs = 0,
    server_id: Annotated[str, typer.Option(help="Its name in the metadata.")] = "",
    response_cache_size: ResponseCacheSize = 64 << 20,
    response_cache_ttl: ResponseCacheTtl = 0.0,
    response_cache_url: ResponseCacheUrl = "",
    response_cache_timeout: ResponseCacheTimeout = 0.05,
    allow_webhook: AllowWebhook = None,
    jobs_dir: JobsDir = None,
    consume: Consume = None,
    require_signature: RequireSignature = None,
    repository_config: RepositoryConfig = None,
    cache: Cache = None,
    state: State = "",
    frontends: Frontends = 1,
    access_log: AccessLog = "",
    trace_config: TraceConfig = None,
    record: Record = None,
    log_level: LogLevel = "info",
) -> None:
    """Serve the models of a repository (Triton's layout) until SIGTERM."""
    given = locals()
    from tuili.server.main import serve as serve_until_stopped

    if not serve_until_stopped(_server_options(given), _announce):
        raise typer.Exit(1)


# Where an option is called otherwise than the field of ServerOptions that it sets.
_FIELDS = {
    "load_model": "load_models",
    "poll_interval": "poll_interval_s",
    "settle": "settle_s",
    "exit_timeout": "exit_timeout_s",
    "drain_delay": "drain_delay_s",
    "max_input_size": "max_input_bytes",
    "response_cache_size": "response_cache_bytes",
    "response_cache_ttl": "response_cache_ttl_s",
    "response_cache_timeout": "response_cache_timeout_s",
    "rate_limit_resource": "rate_limit_resources",
}
_REPEATED = (
    "repository",
    "load_model",
    "allow_webhook",
    "consume",
    "rate_limit_resource",
    "require_signature",
    "http_restricted_api",
    "grpc_restricted_protocol",
    "trace_config",
    "record",
)


def _server_options(given: dict[str, Any]) -> ServerOptions:
    from tuili.server.options import ServerOptions
    from tuili.server.repository.layout import lost_models

    # A server that passes for Triton is called so: clients of Triton ask for the name.
    given = {**given, "server_id": given["server_id"] or given["compat"]}
    given = {**given, "compat": given["compat"].replace("tuili", "")}
    given["overload_status"] = 429 if given["overload_status"] == 429 else 503
    for name in _REPEATED:
        given[name] = tuple(given[name] or ())
    given["rate_limit_resource"] = tuple(map(_resource, given["rate_limit_resource"]))
    given["record"] = tuple(map(_recorded, given["record"]))
    given["request_memory_bytes"] = given.pop("request_memory_mb") << 20
    given["memory_budget_bytes"] = given.pop("memory_budget_mb") << 20
    spaces = given.pop("model_namespacing")
    given["repository"], given["remotes"] = places(given["repository"], given["cache"], spaces)
    for told in lost_models(given["repository"]):
        warnings.warn(told, ModelWarning, stacklevel=2)
    return ServerOptions(**{_FIELDS.get(name, name): value for name, value in given.items()})


def _resource(text: str) -> tuple[str, int]:
    """`NAME:COUNT`; a third part, Triton's device, is accepted, as there is only one device."""
    name, _, count = text.partition(":")
    count = count.partition(":")[0]
    if not name or not count.isdigit():
        raise typer.BadParameter(f"expected NAME:COUNT, got {text!r}")
    return name, int(count)


def _recorded(text: str) -> tuple[str, int]:
    name, _, count = text.rpartition("=")
    if not name or not count.isdigit() or not int(count):
        raise typer.BadParameter(f"expected MODEL=COUNT, got {text!r}", param_hint="--record")
    return name, int(count)


def _announce(running: Running) -> None:
    """Say on stdout that the server is up, and where."""
    ports = " ".join(f"{name}={port}" for name, port in running.ports().items())
    entries = running.dataplane.repository_index(ready_only=True)
    models = ", ".join(sorted({entry["name"] for entry in entries})) or "none"
    Console(soft_wrap=True, highlight=False).print(f"ready: {ports} models: {models}", markup=False)
