"""The options of `tuili serve`: what each one is, and takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

MOST_PORT = 65535

Repositories = Annotated[
    list[str],
    typer.Argument(
        help="Folders of models, or URLs: s3, gs, az, http, https; NAME=FOLDER gives a namespace."
    ),
]
ModelNamespacing = Annotated[
    bool,
    typer.Option(
        "--model-namespacing",
        help="Models of equal name are told apart as NAMESPACE/NAME, by the folders' names.",
    ),
]
RepositoryConfig = Annotated[
    Path | None, typer.Option(help="Credentials of remote repositories, TOML.")
]
RequireSignature = Annotated[
    list[Path] | None,
    typer.Option(help="A public key, PEM: only versions signed with such a key are loaded."),
]
Restricted = Annotated[
    list[str] | None,
    typer.Option(
        help="Who may use parts of the interface: CATEGORY,CATEGORY:HEADER=VALUE.",
        show_default=False,
    ),
]
ForwardPattern = Annotated[
    str,
    typer.Option(help="Headers that become parameters of their request: a regular expression."),
]
ControlMode = Annotated[
    Literal["none", "explicit", "poll", "events", "demand"],
    typer.Option(
        help="Load all models, those named, all and their changes as looked for or as told, "
        "or those that requests come for."
    ),
]
MemoryBudget = Annotated[
    int, typer.Option(min=0, help="Most memory of models in demand mode, MB; 0 for any.")
]
LoadModel = Annotated[
    list[str] | None, typer.Option(help="A model to load in explicit mode; '*' for all.")
]
PollInterval = Annotated[float, typer.Option(min=0.01, help="Seconds between polls.")]
Settle = Annotated[
    float, typer.Option(min=0, help="Seconds without a change before a copy counts as whole.")
]
OnnxExecutor = Annotated[
    Literal["auto", "tuili", "onnxruntime"],
    typer.Option(help="Who runs ONNX files; auto takes onnxruntime where tuili cannot."),
]
Isolation = Annotated[
    Literal["auto", "process", "none"],
    typer.Option(help="Processes for models: those of foreign engines, all, none."),
]
Threads = Annotated[
    int,
    typer.Option(min=0, help="Threads of one model run; 0: all cores, for runs that are worth it."),
]
StrictReadiness = Annotated[bool, typer.Option(help="Ready only while every wanted model is.")]
ExitTimeout = Annotated[
    float, typer.Option(min=0, help="Seconds for requests in flight at the end.")
]
DrainDelay = Annotated[
    float, typer.Option(min=0, help="Seconds to serve on at the end, readiness being false.")
]
AllowClientShm = Annotated[bool, typer.Option(help="Let clients register shared memory.")]
RequestMemory = Annotated[
    int, typer.Option(min=0, help="Most memory of all requests under way, MB; 0 for half of all.")
]
MaxInputSize = Annotated[
    int, typer.Option(min=1, help="Bytes of a JSON body, or of a decompressed one.")
]
GrpcImpl = Annotated[Literal["native", "grpcio"], typer.Option(help="Our own HTTP/2, or grpcio's.")]
AccessLog = Annotated[
    str, typer.Option(help="File for a line of JSON per request; - for standard output.")
]
Frontends = Annotated[
    int, typer.Option(min=1, help="Processes that take connections on the same ports.")
]
Record = Annotated[
    list[str] | None,
    typer.Option(
        help="Requests to keep for the warm-up of a model's next loads: MODEL=COUNT.",
        show_default=False,
    ),
]
TraceConfig = Annotated[
    list[str] | None,
    typer.Option(
        help="Traces, as in Triton: level=TIMESTAMPS, rate=N, triton,file=PATH, "
        "mode=opentelemetry, opentelemetry,url=URL, ...",
        show_default=False,
    ),
]
Compat = Annotated[
    Literal["tuili", "triton"],
    typer.Option(help="With triton, statuses and name are as Triton's where they differ."),
]
OverloadStatus = Annotated[int, typer.Option(help="HTTP status of a full queue: 503, or 429.")]
RateLimit = Annotated[
    Literal["off", "execution_count"],
    typer.Option(help="Whether instances wait for the resources that they name."),
]
RateLimitResource = Annotated[
    list[str] | None, typer.Option(help="How much there is of a resource: NAME:COUNT.")
]
TlsCertificate = Annotated[
    Path | None, typer.Option(help="PEM chain: HTTP and gRPC speak TLS.", show_default=False)
]
TlsKey = Annotated[
    Path | None, typer.Option(help="PEM key of the certificate.", show_default=False)
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(
        help="PEM of authorities: clients must show a certificate of theirs.", show_default=False
    ),
]
TlsProtocols = Annotated[
    Literal["both", "http", "grpc"], typer.Option(help="What speaks TLS, given a certificate.")
]
BusyPollUs = Annotated[
    int, typer.Option(min=0, help="Look for the next request so long instead of sleeping.")
]
ResponseCacheSize = Annotated[
    int, typer.Option(min=0, help="Bytes of answers kept for models that ask for it.")
]
ResponseCacheTtl = Annotated[
    float, typer.Option(min=0, help="Seconds that an answer is kept; 0 for ever.")
]
ResponseCacheUrl = Annotated[
    str, typer.Option(help="A Redis in which servers share answers: redis://HOST:PORT.")
]
ResponseCacheTimeout = Annotated[
    float, typer.Option(min=0, help="Seconds that an answer of that Redis is waited for.")
]
AllowWebhook = Annotated[
    list[str] | None, typer.Option(help="A URL below which answers of jobs may be posted.")
]
JobsDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder where jobs are written down, to outlive the server; else in memory.",
        show_default=False,
    ),
]
Consume = Annotated[
    list[str] | None, typer.Option(help="A queue to take requests from: redis:// or nats://.")
]
Cache = Annotated[Path | None, typer.Option(help="Folder of compiled models.", show_default=False)]
State = Annotated[
    str,
    typer.Option(
        help="Journal of roll-outs: a file, or postgresql://...; default in the repository."
    ),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")
]
