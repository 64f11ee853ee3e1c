"""What `--trace-config` says: Triton's words for where traces go and which are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tuili.errors import InvalidArgument, nearest

Mode = Literal["triton", "opentelemetry"]
# Global settings: `--trace-config NAME=VALUE`.
_GLOBAL: Final = ("level", "rate", "count", "mode")
# Settings of one mode: `--trace-config MODE,NAME=VALUE`.
_BY_MODE: Final = {
    "triton": ("file", "log-frequency"),
    "opentelemetry": (
        "url", "resource", "bsp_max_queue_size", "bsp_schedule_delay", "bsp_max_export_batch_size",
    ),
}  # fmt: skip
URL: Final = "http://localhost:4318/v1/traces"


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """The settings a server starts with; `settings` are those of the trace extension."""

    mode: Mode = "triton"
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    url: str = URL
    resource: dict[str, str] = field(default_factory=dict[str, str])
    batching: dict[str, int] = field(default_factory=dict[str, int])


def read(entries: Sequence[str]) -> TraceConfig:
    """The configuration in the values of `--trace-config`; InvalidArgument for unknown words."""
    mode: Mode = "triton"
    settings: dict[str, Any] = {}
    url, resource, batching = URL, dict[str, str](), dict[str, int]()
    for entry in entries:
        scope, name, value = _split(entry)
        if name == "mode":
            if value not in ("triton", "opentelemetry"):
                raise _wrong(entry, "mode must be triton or opentelemetry")
            mode = value
        elif name == "level":
            settings.setdefault("trace_level", []).append(value)
        elif name == "resource":
            key, _, text = value.partition("=")
            resource[key] = text
        elif name == "url":
            url = value
        elif scope == "opentelemetry":
            batching[name] = _number(entry, value)
        elif name == "file":
            settings["trace_file"] = value
        else:
            settings[f"trace_{name}" if not scope else "log_frequency"] = value
    return TraceConfig(mode, settings, url, resource, batching)


def _split(entry: str) -> tuple[str, str, str]:
    """Mode ("" for all), name and value of an entry."""
    words, equals, value = entry.partition("=")
    scope, _, name = words.rpartition(",")
    known = _BY_MODE.get(scope) if scope else _GLOBAL
    if not equals or not value or known is None or name not in known:
        hint = nearest(name, known or ())
        raise _wrong(entry, f"expected NAME=VALUE or MODE,NAME=VALUE.{hint}")
    return scope, name, value


def _number(entry: str, value: str) -> int:
    if not value.isdigit():
        raise _wrong(entry, "a whole number is expected")
    return int(value)


def _wrong(entry: str, text: str) -> InvalidArgument:
    known = [*_GLOBAL, *(f"{mode},{name}" for mode, names in _BY_MODE.items() for name in names)]
    return InvalidArgument(f"--trace-config {entry}: {text} Known: {', '.join(known)}")
