"""Writes a configuration as protobuf text, YAML or JSON, without what is at its default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, cast

from tuili.errors import Unsupported
from tuili.server.repository.schema import ENUMS, field_type

Json = dict[str, Any]

# What a reader knows without being told, by field; empty values are left out everywhere.
_EMPTY: Final[tuple[object, ...]] = (None, False, "", 0, [], {})
# Absence of these means something else than their empty value.
_ALWAYS: Final = ("max_batch_size", "dynamic_batching")
_DEFAULTS: Final[dict[str, object]] = {
    "format": "FORMAT_NONE",
    "version_policy": {"latest": {"num_versions": 1}},
    "kind": "KIND_CPU",
}


def essential(raw: Json) -> Json:
    """The configuration without its defaults: they say nothing that is not so anyway."""
    found: Json = {}
    for name, value in raw.items():
        kept = _kept(value)
        if name in _ALWAYS or not (kept in _EMPTY or _is_default(raw, name)):
            found[name] = kept
    # The folder names the model; how a file is run follows from the file.
    for name in ("name", "platform", "backend"):
        if name != "backend" or raw.get("backend") in ("tuili", "mixed", "onnxruntime"):
            found.pop(name, None)
    return found


def _is_default(raw: Json, name: str) -> bool:
    if name == "instance_group":
        plain = {"name": raw.get("name", ""), "kind": "KIND_CPU", "count": 1, "gpus": []}
        return raw[name] == [plain]
    return raw[name] == _DEFAULTS.get(name)


def _kept(value: Any) -> Any:
    if isinstance(value, list):
        return [_kept(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        return {
            key: _kept(item)
            for key, item in cast(Json, value).items()
            if item not in _EMPTY and item != _DEFAULTS.get(key)
        }
    return value


def as_json(raw: Json) -> str:
    """JSON, indented."""
    return json.dumps(raw, indent=2) + "\n"


def as_yaml(raw: Json) -> str:
    """YAML, with short lists on one line."""
    try:
        import yaml
    except ImportError as error:
        raise Unsupported("YAML needs PyYAML: pip install 'tuili[server]'") from error
    return yaml.safe_dump(raw, sort_keys=False, default_flow_style=None, allow_unicode=True)


def as_pbtxt(raw: Json) -> str:
    """Protobuf text, as in Triton's own examples."""
    return "".join(f"{line}\n" for line in _message("ModelConfig", raw))


FORMS: Final = {"pbtxt": as_pbtxt, "yaml": as_yaml, "json": as_json}


def _message(message: str, raw: Json) -> Iterator[str]:
    for name, value in raw.items():
        how, kind = field_type(message, name)
        if how == "one":
            yield from _field(name, kind, value)
        elif how == "many":
            for item in _items(kind, value):
                yield from _field(name, kind, item)
        else:
            for key, item in value.items():
                yield f"{name} {{"
                yield f"  key: {key if how == 'map:int' else json.dumps(key)}"
                yield from (f"  {line}" for line in _field("value", kind, item))
                yield "}"


def _items(kind: str, values: list[Any]) -> list[Any]:
    """The items of a repeated field; scalars stand in one bracketed list."""
    return values if kind not in ENUMS and _is_message(values) else [values]


def _is_message(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], dict)


def _field(name: str, kind: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{name} {{"
        yield from (f"  {line}" for line in _message(kind, cast(Json, value)))
        yield "}"
    elif isinstance(value, list):
        yield f"{name}: [ {', '.join(_scalar(kind, item) for item in cast(list[Any], value))} ]"
    else:
        yield f"{name}: {_scalar(kind, value)}"


def _scalar(kind: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if kind in ENUMS or not isinstance(value, str) else json.dumps(value)
