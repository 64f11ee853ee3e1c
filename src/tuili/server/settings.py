"""Trace and log settings: the two settings extensions of the protocol."""

from __future__ import annotations

import logging
from typing import Any, Final

from tuili.errors import InvalidArgument, Unsupported, nearest
from tuili.server.protocol.parameters import wrong_type

Json = dict[str, Any]

_LEVELS: Final = ("OFF", "TIMESTAMPS", "TENSORS")
_TRACE_DEFAULTS: Final[Json] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
_LOG_KINDS: Final[dict[str, type]] = {
    "log_file": str,
    "log_info": bool,
    "log_warning": bool,
    "log_error": bool,
    "log_verbose_level": int,
    "log_format": str,
}
_JSON_NAMES: Final = {str: "string", bool: "boolean", int: "unsigned-integer"}
_LOG_FORMATS: Final = ("default", "ISO8601")


class TraceSettings:
    """The server's trace settings and what single models override of them."""

    def __init__(self, settings: Json | None = None, mode: str = "triton") -> None:
        """`settings` are those to start with, where they are not the usual ones."""
        for key, value in (settings or {}).items():
            if key != "trace_file":
                _check_trace(key, value)
        self._start: Json = {**_TRACE_DEFAULTS, **(settings or {}), "trace_mode": mode}
        self._global: Json = dict(self._start)
        self._models: dict[str, Json] = {}

    def has_own(self, model: str) -> bool:
        """Whether any setting of a model is its own."""
        return bool(self._models.get(model))

    def of(self, model: str = "") -> Json:
        """The settings that hold for a model, or for the server."""
        return {**self._global, **self._models.get(model, {})}

    def update(self, settings: Json, model: str = "") -> Json:
        """Merge; None or an empty list falls back to the global (or the default) value."""
        for key, value in settings.items():
            _check_trace(key, value)
        kept = self._models.setdefault(model, {}) if model else self._global
        for key, value in settings.items():
            if value is None or value == []:
                if model:
                    kept.pop(key, None)
                else:
                    kept[key] = self._start[key]
            else:
                kept[key] = value if key == "trace_level" else _single(value)
        return self.of(model)


class LogSettings:
    """What is logged; applied to tuili's own logger."""

    def __init__(self) -> None:
        self._settings: Json = {
            "log_file": "",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
            "log_format": "default",
        }

    def get(self) -> Json:
        """All settings."""
        return dict(self._settings)

    def update(self, settings: Json) -> Json:
        """Merge and apply."""
        for key, value in settings.items():
            _check_log(key, value)
        self._settings.update(settings)
        logging.getLogger("tuili").setLevel(self._level())
        return self.get()

    def _level(self) -> int:
        found = self._settings
        if found["log_verbose_level"] > 0:
            return logging.DEBUG
        for key, level in (
            ("log_info", logging.INFO),
            ("log_warning", logging.WARNING),
            ("log_error", logging.ERROR),
        ):
            if found[key]:
                return level
        return logging.CRITICAL


def _check_trace(key: str, value: object) -> None:
    if key not in _TRACE_DEFAULTS:
        raise InvalidArgument(
            f"unknown trace setting {key!r}.{nearest(key, _TRACE_DEFAULTS)} "
            f"Known: {', '.join(_TRACE_DEFAULTS)}"
        )
    if key == "trace_file":
        raise Unsupported("trace file location can not be updated through network protocol")
    if value is None or value == []:
        return
    if key == "trace_mode":
        raise Unsupported(f"trace setting {key!r} can not be updated through network protocol")
    if key == "trace_level":
        levels = value if isinstance(value, list) else [value]
        if any(level not in _LEVELS for level in levels):
            raise InvalidArgument(f"trace_level must be of {', '.join(_LEVELS)}, got {value!r}")
    else:
        if isinstance(value, list) and len(value) > 1:
            raise InvalidArgument(f"expect only 1 value for '{key}'")
        text, least = str(_single(value)), -1 if key == "trace_count" else 0
        if not text.lstrip("-").isdigit():
            raise InvalidArgument(f"Unable to parse '{key}', got: {text}")
        if int(text) < least:
            wanted = f"Expecting value >= {least}"
            raise InvalidArgument(f"Unable to parse '{key}'. {wanted}, got:{text}")


def _single(value: object) -> str:
    """A setting sent as text, number or a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value)


def _check_log(key: str, value: object) -> None:
    kind = _LOG_KINDS.get(key)
    if kind is None:
        raise InvalidArgument(f"unknown log setting {key!r}.{nearest(key, _LOG_KINDS)}")
    if key == "log_file":
        raise Unsupported("log file location can not be updated through network protocol")
    if type(value) is not kind:
        raise wrong_type(key, value, _JSON_NAMES[kind])
    if key == "log_format" and value not in _LOG_FORMATS:
        raise InvalidArgument(f"invalid argument for log_format, got: {value}")
    if key == "log_verbose_level" and isinstance(value, int) and value < 0:
        raise wrong_type(key, value, "unsigned-integer")
