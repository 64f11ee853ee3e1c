"""ModelConfig: what the server uses of a model's configuration, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from tuili.errors import InvalidModel, ParseError, nearest
from tuili.server.repository import pbtxt
from tuili.server.repository.schema import ENUMS, MESSAGES, field_type
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy

Json = dict[str, Any]

DATATYPES: Final = {
    kind: "BYTES" if kind == "TYPE_STRING" else kind.removeprefix("TYPE_")
    for kind in ENUMS["DataType"]
}
CONFIG_NAMES: Final = {name: kind for kind, name in DATATYPES.items()}
_SCALARS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
}


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One declared input or output; `dims` without the batch dim."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    ragged: bool = False
    label_filename: str = ""


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which of the versions on disk are served: the newest `latest`, or all, or these."""

    latest: int = 1
    all: bool = False
    specific: tuple[int, ...] = ()

    def select(self, versions: Sequence[int]) -> list[int]:
        """The versions to serve, ascending."""
        ordered = sorted(versions)
        if self.all:
            return ordered
        if self.specific:
            return [version for version in ordered if version in self.specific]
        return ordered[-self.latest :]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model's configuration; `raw` is all of it as written, in JSON form."""

    name: str
    backend: str = ""
    max_batch_size: int | None = None
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    policy: BatchPolicy | None = None
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    instances: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    warmups: tuple[Json, ...] = ()
    decoupled: bool = False
    model_filename: str = ""
    raw: Json = field(default_factory=dict[str, Any])


def read(folder: Path, override: str | None = None) -> ModelConfig:
    """The configuration in `folder` (or the JSON text `override`), or the default one."""
    if override is not None:
        return from_json(folder.name, parse_json(override), f"the given config of {folder.name!r}")
    path = folder / "config.pbtxt"
    if not path.exists():
        return from_json(folder.name, {}, str(path))
    try:
        raw = pbtxt.parse(path.read_text(encoding="utf-8"))
    except ParseError as error:
        raise InvalidModel(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{path} cannot be read: {error}") from error
    return from_json(folder.name, raw, str(path))


def step_models(config: ModelConfig) -> list[str]:
    """The models that an ensemble is made of; none for other models."""
    steps = config.raw.get("ensemble_scheduling", {}).get("step", ())
    return list(dict.fromkeys(step.get("model_name", "") for step in steps))


def sequence_names(config: ModelConfig) -> frozenset[str]:
    """The tensors that the server itself feeds to and takes from a stateful model."""
    raw = config.raw.get("sequence_batching", {})
    names = [control.get("name", "") for control in raw.get("control_input", ())]
    for state in raw.get("state", ()):
        names += [state.get("input_name", ""), state.get("output_name", "")]
    return frozenset(names)


def parse_json(text: str) -> Json:
    """A configuration given as JSON, checked against the schema."""
    try:
        raw: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"the model configuration is not JSON: {error}") from error
    return cast(Json, _checked("ModelConfig", raw, "config"))


def from_json(name: str, raw: Json, where: str) -> ModelConfig:
    """The checked view of a configuration in JSON form."""
    declared = raw.get("name") or name
    if declared != name:
        raise InvalidModel(
            f"{where}: the configuration is of model {declared!r}, but its folder is {name!r}"
        )
    max_batch_size = raw.get("max_batch_size")
    if max_batch_size is None and raw.get("input"):
        # As in Triton: a configuration that lists its inputs and no batch size means 0.
        max_batch_size = 0
    if max_batch_size is not None and max_batch_size < 0:
        raise InvalidModel(f"{where}: max_batch_size must be at least 0, got {max_batch_size}")
    return ModelConfig(
        name=name,
        backend=_backend(raw),
        max_batch_size=max_batch_size,
        inputs=tuple(_tensor(entry, where) for entry in raw.get("input", ())),
        outputs=tuple(_tensor(entry, where) for entry in raw.get("output", ())),
        policy=_policy(raw, max_batch_size, where),
        versions=_versions(raw.get("version_policy", {}), where),
        instances=_instances(raw.get("instance_group", ()), where),
        parameters={
            key: value.get("string_value", "") for key, value in raw.get("parameters", {}).items()
        },
        warmups=tuple(raw.get("model_warmup", ())),
        decoupled=bool(raw.get("model_transaction_policy", {}).get("decoupled", False)),
        model_filename=_filename(raw.get("default_model_filename", ""), where),
        raw=raw,
    )


def _backend(raw: Json) -> str:
    """`backend`, or what the older `platform` means."""
    backend: str = raw.get("backend", "")
    if backend:
        return backend
    platform: str = raw.get("platform", "")
    if "ensemble_scheduling" in raw:
        return "ensemble"
    return {"onnxruntime_onnx": "onnxruntime", "ensemble": "ensemble"}.get(platform, platform)


def _filename(name: str, where: str) -> str:
    if name and (name in (".", "..") or "/" in name or "\0" in name):
        raise InvalidModel(
            f"{where}: default_model_filename {name!r} must be a name inside the version's folder"
        )
    return name


def _tensor(entry: Json, where: str) -> TensorConfig:
    name = entry.get("name", "")
    if not name:
        raise InvalidModel(f"{where}: an input or output has no name")
    kind = entry.get("data_type", "TYPE_INVALID")
    if kind == "TYPE_INVALID":
        raise InvalidModel(f"{where}: tensor {name!r} needs a data_type")
    dims = tuple(entry.get("dims", ()))
    if any(dim < -1 or dim == 0 for dim in dims):
        raise InvalidModel(
            f"{where}: tensor {name!r}: dims must be positive or -1, got {list(dims)}"
        )
    reshape = entry.get("reshape")
    return TensorConfig(
        name=name,
        datatype=DATATYPES[kind],
        dims=dims,
        reshape=None if reshape is None else tuple(reshape.get("shape", ())),
        optional=bool(entry.get("optional", False)),
        ragged=bool(entry.get("allow_ragged_batch", False)),
        label_filename=_filename(entry.get("label_filename", ""), where),
    )


def _versions(raw: Json, where: str) -> VersionPolicy:
    if "all" in raw:
        return VersionPolicy(all=True)
    if "specific" in raw:
        wanted = tuple(raw["specific"].get("versions", ()))
        if not wanted:
            raise InvalidModel(f"{where}: version_policy.specific needs at least one version")
        return VersionPolicy(specific=wanted)
    latest = raw.get("latest", {}).get("num_versions", 1)
    if latest < 1:
        raise InvalidModel(f"{where}: version_policy.latest.num_versions must be at least 1")
    return VersionPolicy(latest=latest)


def _instances(groups: Sequence[Json], where: str) -> int:
    count = sum(int(group.get("count", 1)) for group in groups if not group.get("passive"))
    if any(int(group.get("count", 1)) < 1 for group in groups):
        raise InvalidModel(f"{where}: instance_group count must be at least 1")
    return max(count, 1)


def _policy(raw: Json, max_batch_size: int | None, where: str) -> BatchPolicy | None:
    """The batch policy that is written down, or None where nothing is."""
    batching = raw.get("dynamic_batching")
    if batching is None:
        return None if max_batch_size is None else BatchPolicy(max_rows=max_batch_size)
    preferred = tuple(sorted(batching.get("preferred_batch_size", ())))
    limit = max_batch_size or 0
    if any(size < 1 or size > limit for size in preferred):
        raise InvalidModel(
            f"{where}: dynamic batching preferred sizes must be in 1..max_batch_size "
            f"({limit}), got {list(preferred)}"
        )
    levels = int(batching.get("priority_levels", 0))
    default_level = int(batching.get("default_priority_level", 0))
    if levels and not 1 <= default_level <= levels:
        raise InvalidModel(
            f"{where}: default priority level must be in 1..{levels}, got {default_level}"
        )
    return BatchPolicy(
        max_rows=limit,
        merge=limit > 0,
        preferred_rows=preferred,
        max_delay_s=int(batching.get("max_queue_delay_microseconds", 0)) / 1e6,
        priority_levels=levels,
        default_level=default_level,
        level=_level(batching.get("default_queue_policy", {})),
        levels={
            int(level): _level(entry)
            for level, entry in batching.get("priority_queue_policy", {}).items()
        },
    )


def _level(raw: Json) -> LevelPolicy:
    return LevelPolicy(
        max_queue_size=int(raw.get("max_queue_size", 0)),
        timeout_s=int(raw.get("default_timeout_microseconds", 0)) / 1e6,
        allow_timeout_override=bool(raw.get("allow_timeout_override", False)),
        on_timeout="delay" if raw.get("timeout_action") == "DELAY" else "reject",
    )


def _checked(message: str, raw: object, where: str) -> object:
    """JSON checked against a message of the schema; whole numbers may be written as text."""
    if not isinstance(raw, dict):
        raise InvalidModel(f"{where}: expected an object, found {raw!r}")
    found: Json = {}
    for key, value in cast(Json, raw).items():
        name = _snake(key)
        if name not in MESSAGES[message]:
            hint = nearest(name, MESSAGES[message])
            raise InvalidModel(f"{where}: {message} has no field {key!r}.{hint}")
        how, kind = field_type(message, name)
        at = f"{where}.{key}"
        if how == "one":
            found[name] = _checked_one(kind, value, at)
        elif how == "many" and isinstance(value, list):
            items = cast(list[object], value)
            found[name] = [_checked_one(kind, v, f"{at}[{i}]") for i, v in enumerate(items)]
        elif how.startswith("map") and isinstance(value, dict):
            entries = cast(Json, value)
            found[name] = {k: _checked_one(kind, v, f"{at}[{k!r}]") for k, v in entries.items()}
        else:
            raise InvalidModel(f"{at}: expected {'a list' if how == 'many' else 'an object'}")
    return found


def _checked_one(kind: str, value: object, at: str) -> object:
    if kind in MESSAGES:
        return _checked(kind, value, at)
    if kind in ENUMS:
        if value in ENUMS[kind]:
            return value
        raise InvalidModel(f"{at}: {value!r} is no {kind}.{nearest(str(value), ENUMS[kind])}")
    if kind == "int" and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise InvalidModel(f"{at}: expected a {kind}, found {value!r}")
    return value


def _snake(name: str) -> str:
    """JSON may use protobuf's lowerCamelCase names."""
    return "".join("_" + char.lower() if char.isupper() else char for char in name)
