"""The options of a server, each with its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ControlMode = Literal["none", "explicit", "poll", "events", "demand"]
# The modes in which the server follows what changes in its repositories.
FOLLOWS: Final = ("poll", "events")
# Where a model runs: "auto" keeps native code in the server's process and all else in hosts.
Isolation = Literal["auto", "process", "none"]
# What speaks TLS, given a certificate.
TlsProtocols = Literal["both", "http", "grpc"]
# Who runs an ONNX file: tuili's compiler, ONNX Runtime, or the latter where the former cannot.
OnnxExecutor = Literal["auto", "tuili", "onnxruntime"]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve. Port -1 switches an endpoint off, 0 takes any free port."""

    repository: tuple[Path, ...]
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    model_control_mode: ControlMode = "none"
    load_models: tuple[str, ...] = ()
    # Most memory that the models may take in demand mode; 0: any.
    memory_budget_bytes: int = 0
    poll_interval_s: float = 15.0
    # How long nothing must change in a version without a record before it counts as whole.
    settle_s: float = 1.0
    # Of one model run; 0: as many as this process may use.
    threads: int = 0
    exit_on_error: bool = True
    strict_readiness: bool = True
    exit_timeout_s: float = 30.0
    # After SIGTERM: how long requests are still taken while readiness is false already.
    drain_delay_s: float = 0.0
    log_level: str = "info"
    allow_client_shm: bool = False
    max_input_bytes: int = 1 << 26
    # Of all requests under way together; 0: half of the memory.
    request_memory_bytes: int = 0
    compat: Literal["", "triton"] = ""
    overload_status: Literal[503, 429] = 503
    # For models that ask for it with `response_cache { enable: true }`.
    response_cache_bytes: int = 64 << 20
    response_cache_ttl_s: float = 0.0
    # A Redis in which servers share their answers.
    response_cache_url: str = ""
    response_cache_timeout_s: float = 0.05
    cache: Path | None = None
    isolation: Isolation = "auto"
    onnx_executor: OnnxExecutor = "auto"
    # Whether models wait for the resources that their instance groups name, and how much there is.
    rate_limit: Literal["off", "execution_count"] = "off"
    rate_limit_resources: tuple[tuple[str, int], ...] = ()
    grpc_impl: Literal["native", "grpcio"] = "native"
    server_id: str = "tuili"
    # PEM files; both or none. HTTP and gRPC, or `tls_protocols` of them, then speak TLS only.
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    # PEM: authorities, one of which must have signed the certificate that every client shows.
    tls_client_ca: Path | None = None
    tls_protocols: TlsProtocols = "both"
    # Parts of the interface that ask for a header: CATEGORY,..:HEADER=VALUE.
    http_restricted_api: tuple[str, ...] = ()
    grpc_restricted_protocol: tuple[str, ...] = ()
    # Regular expressions: headers with such names become parameters of their request.
    http_header_forward_pattern: str = ""
    grpc_header_forward_pattern: str = ""
    # Where every request is noted, a line of JSON each; "-" for standard output, "" for nowhere.
    access_log: str = ""
    # Processes that take connections: this one, and the others beside it.
    frontends: int = 1
    # Triton's `--trace-config` entries: SETTING=VALUE, or MODE,SETTING=VALUE.
    trace_config: tuple[str, ...] = ()
    # How long the loop stays awake after a request, looking for the next; 0 lets it sleep.
    busy_poll_us: int = 0
    # How many requests to keep in the folder of a model, for the warm-up of its loads.
    record: tuple[tuple[str, int], ...] = ()
    # URLs below which the answers of jobs may be posted.
    allow_webhook: tuple[str, ...] = ()
    # Where jobs are written down, so that they outlive the server; None keeps them in memory.
    jobs_dir: Path | None = None
    # Queues to take requests from.
    consume: tuple[str, ...] = ()
    # Where roll-outs are decided: a SQLite file (default: in the first repository), or the
    # address of a PostgreSQL database.
    state: str = ""
    # URLs of remote repositories; the folders of their mirrors are among `repository`.
    remotes: tuple[str, ...] = ()
    # Credentials and endpoints of remote repositories, TOML.
    repository_config: Path | None = None
    # Public keys, one of which must have signed every version that is loaded.
    require_signature: tuple[Path, ...] = ()
