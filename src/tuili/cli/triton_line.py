"""Triton's command line in the words of `tuili serve`: a table of what its options become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tuili.errors import InvalidArgument, nearest

Line = list[str]


def translated(arguments: Sequence[str]) -> tuple[Line, list[str]]:
    """The arguments of `tuili serve`, and the options of Triton that have no meaning here.

    InvalidArgument for what Triton has not, and for what would serve otherwise than it says.
    """
    # As in Triton, everybody may connect; its clients ask for its name.
    line: Line = ["--compat", "triton"]
    repositories: list[str] = []
    hosts: dict[str, str] = {}
    secure: dict[str, str] = {}
    ignored: list[str] = []
    for name, value in _pairs(arguments):
        if name in _REPOSITORY:
            repositories.append(value)
        elif name in _HOST:
            hosts[name] = value
        elif name in _TLS:
            secure[name] = value
        elif name in _RULES:
            line += _RULES[name](name, value)
        elif name in _REFUSED:
            _refuse(name, value)
        else:
            ignored.append(name)
    if not repositories:
        raise InvalidArgument("no model repository: give --model-repository=FOLDER")
    if len(set(hosts.values())) > 1:
        raise InvalidArgument(f"one address is listened on, but the options name several: {hosts}")
    host = next(iter(hosts.values()), "0.0.0.0")  # noqa: S104 - Triton's default
    return [*repositories, "--host", host, *line, *_tls(secure)], ignored


def _tls(given: dict[str, str]) -> Line:
    """TLS of gRPC alone; without the switch, Triton looks at none of its files."""
    mutual = _flag(_MUTUAL, given.get(_MUTUAL, "false"))
    # As Triton reads them: whatever that switch says, to give it is to want TLS.
    if not (_flag(_USE_TLS, given.get(_USE_TLS, "false")) or _MUTUAL in given):
        return []
    wanted = ["grpc-server-cert", "grpc-server-key", *(["grpc-root-cert"] if mutual else ())]
    if missing := [name for name in wanted if not given.get(name)]:
        raise InvalidArgument(f"--{_MUTUAL if mutual else _USE_TLS} needs --{', --'.join(missing)}")
    pairs = zip(("--tls-certificate", "--tls-key", "--tls-client-ca"), wanted, strict=False)
    files = [part for ours, name in pairs for part in (ours, given[name])]
    return ["--tls-protocols", "grpc", *files]


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and their values, `--name=value` or `--name value`."""
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        name, equals, value = text.removeprefix("--").partition("=")
        if not text.startswith("--") or not _is_known(name):
            shown = text.partition("=")[0]
            raise InvalidArgument(f"Triton has no option {shown!r}.{nearest(name, _known())}")
        if not equals and name not in _ALONE:
            if not rest:
                raise InvalidArgument(f"--{name} needs a value")
            value = rest.pop(0)
        yield name, value


def _is_known(name: str) -> bool:
    return name in _known() or name.startswith(_IGNORED_PREFIXES)


def _known() -> list[str]:
    return [*_REPOSITORY, *_HOST, *_TLS, *_RULES, *_REFUSED, *_IGNORED, *_ALONE]


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "1", "false", "0"):
        raise InvalidArgument(f"--{name} must be true or false, got {value!r}")
    return value.lower() in ("true", "1")


def _as(name: str) -> Callable[[str, str], Line]:
    return lambda _, value: [f"--{name}", value]


def _same(name: str, value: str) -> Line:
    return [f"--{name}", value]


def _switch(name: str, value: str) -> Line:
    return [f"--{name}" if _flag(name, value) else f"--no-{name}"]


def _only_on(name: str, value: str) -> Line:
    return [f"--{name}"] if _flag(name, value) else []


def _port(protocol: str) -> Callable[[str, str], Line]:
    """`--allow-http=false`: no port."""
    return lambda name, value: [] if _flag(name, value) else [f"--{protocol}-port", "-1"]


def _verbose(name: str, value: str) -> Line:
    return ["--log-level", "debug"] if value not in ("0", "false") else []


def _quieter(level: str) -> Callable[[str, str], Line]:
    """What of a level is not logged: the next one is the least."""
    return lambda name, value: [] if _flag(name, value) else ["--log-level", level]


def _response_cache(_: str, value: str) -> Line:
    """`local,size=BYTES`, or one setting of `redis`, of which host and port make a URL."""
    kind, _, setting = value.partition(",")
    key, _, given = setting.partition("=")
    if kind == "local" and key == "size":
        return ["--response-cache-size", given]
    raise InvalidArgument(
        f"--cache-config={value}: only local,size=BYTES has a counterpart; for Redis give "
        "`tuili serve` --response-cache-url redis://HOST:PORT"
    )


def _refuse(name: str, value: str) -> None:
    """What would change who may ask, or what is served, if it were left out."""
    off = value.lower() in ("false", "0", "")
    if name.startswith("allow-") and off:
        return
    raise InvalidArgument(f"--{name} has no counterpart: {_REFUSED[name]}")


_REPOSITORY: Final = ("model-repository", "model-store")
_HOST: Final = ("http-address", "grpc-address")
_USE_TLS: Final = "grpc-use-ssl"
_MUTUAL: Final = "grpc-use-ssl-mutual"
_TLS: Final = (_USE_TLS, _MUTUAL, "grpc-server-cert", "grpc-server-key", "grpc-root-cert")
_RULES: Final[dict[str, Callable[[str, str], Line]]] = {
    **dict.fromkeys(
        ("http-port", "grpc-port", "metrics-port", "model-control-mode", "load-model",
         "trace-config", "rate-limit", "rate-limit-resource", "http-restricted-api",
         "grpc-restricted-protocol", "http-header-forward-pattern",
         "grpc-header-forward-pattern"),
        _same,
    ),
    "id": _as("server-id"),
    "exit-timeout-secs": _as("exit-timeout"),
    "repository-poll-secs": _as("poll-interval"),
    "http-max-input-size": _as("max-input-size"),
    "response-cache-byte-size": _as("response-cache-size"),
    "exit-on-error": _switch,
    "strict-readiness": _switch,
    "allow-client-shm": _switch,
    "model-namespacing": _only_on,
    "allow-http": _port("http"),
    "allow-grpc": _port("grpc"),
    "allow-metrics": _port("metrics"),
    "log-verbose": _verbose,
    "log-info": _quieter("warning"),
    "log-warning": _quieter("error"),
    "cache-config": _response_cache,
}  # fmt: skip
_TRACE: Final = "it is deprecated in Triton too; --trace-config says the same"
_PLATFORM: Final = "no such front end"
_REFUSED: Final = {
    "model-config-name": "a model has one configuration",
    "trace-file": _TRACE,
    "trace-level": _TRACE,
    "trace-rate": _TRACE,
    "trace-count": _TRACE,
    "trace-log-frequency": _TRACE,
    "allow-sagemaker": _PLATFORM,
    "allow-vertex-ai": _PLATFORM,
}
_ALONE: Final = ("disable-auto-complete-config",)
# Threads, pools, GPUs, folders of shared libraries: nothing that a client would see.
_IGNORED: Final = (
    "http-thread-count", "model-load-thread-count", "model-load-retry-count",
    "model-load-gpu-limit", "buffer-manager-thread-count", "pinned-memory-pool-byte-size",
    "cuda-memory-pool-byte-size", "cuda-virtual-address-size", "min-supported-compute-capability",
    "enable-peer-access", "host-policy", "backend-directory", "backend-config",
    "repoagent-directory", "cache-directory", "strict-model-config", "log-error", "log-format",
    "log-file", "metrics-address", "metrics-config", "metrics-interval-ms", "allow-gpu-metrics",
    "allow-cpu-metrics", "reuse-http-port", "reuse-grpc-port",
)  # fmt: skip
_IGNORED_PREFIXES: Final = (
    "grpc-infer-", "grpc-max-", "grpc-keepalive-", "grpc-http2-", "sagemaker-", "vertex-ai-",
)  # fmt: skip
