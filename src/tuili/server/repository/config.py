"""ModelConfig: what the server uses of a model's configuration, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tuili.server.repository import formats
from tuili.server.repository.parameter_rules import check_parameters
from tuili.server.repository.schema import ENUMS
from tuili.server.repository.source import Source
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy

Json = dict[str, Any]

DATATYPES: Final = {
    kind: "BYTES" if kind == "TYPE_STRING" else kind.removeprefix("TYPE_")
    for kind in ENUMS["DataType"]
}
CONFIG_NAMES: Final = {name: kind for kind, name in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One declared input or output; `dims` without the batch dim."""

    name: str
    datatype: str  # "": the model's own
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
    source: Source = field(default_factory=lambda: Source("the configuration"))


def read(folder: Path, override: str | None = None) -> ModelConfig:
    """The configuration in `folder` (or the JSON text `override`), or the default one."""
    if override is not None:
        name = f"the given config of {folder.name!r}"
        return from_json(folder.name, *formats.parse(override, name, formats.read_lenient_json))
    path = formats.find(folder)
    if path is None:
        return from_json(folder.name, {}, Source(str(folder)))
    return from_json(folder.name, *formats.read(path))


def step_models(config: ModelConfig) -> list[str]:
    """The models that an ensemble is made of; none for other models."""
    steps = config.raw.get("ensemble_scheduling", {}).get("step", ())
    return list(dict.fromkeys(step.get("model_name", "") for step in steps))


def server_tensors(config: ModelConfig) -> frozenset[str]:
    """The tensors that the server itself feeds to a model and takes from it."""
    raw = config.raw.get("sequence_batching", {})
    names = [control.get("name", "") for control in raw.get("control_input", ())]
    for entry in config.raw.get("batch_input", ()):
        names += entry.get("target_name", ())
    for state in raw.get("state", ()):
        names += [state.get("input_name", ""), state.get("output_name", "")]
    return frozenset(names)


def from_json(name: str, raw: Json, where: Source) -> ModelConfig:
    """The checked view of a configuration in JSON form."""
    declared = raw.get("name") or name
    if declared != name:
        raise where.error(
            f"the configuration is of model {declared!r}, but its folder is {name!r}", "name"
        )
    max_batch_size = raw.get("max_batch_size")
    if max_batch_size is None and raw.get("input"):
        # As in Triton: a configuration that lists its inputs and no batch size means 0.
        max_batch_size = 0
    if max_batch_size is not None and max_batch_size < 0:
        raise where.error(
            f"max_batch_size must be at least 0, got {max_batch_size}", "max_batch_size"
        )
    parameters = {
        key: value.get("string_value", "") for key, value in raw.get("parameters", {}).items()
    }
    check_parameters(parameters, where.at("parameters"))
    return ModelConfig(
        name=name,
        backend=_backend(raw),
        max_batch_size=max_batch_size,
        inputs=_tensors(raw.get("input", ()), where.at("input")),
        outputs=_tensors(raw.get("output", ()), where.at("output")),
        policy=_policy(raw, max_batch_size, where),
        versions=_versions(raw.get("version_policy", {}), where.at("version_policy")),
        instances=_instances(raw.get("instance_group", ()), where.at("instance_group")),
        parameters=parameters,
        warmups=tuple(raw.get("model_warmup", ())),
        decoupled=bool(raw.get("model_transaction_policy", {}).get("decoupled", False)),
        model_filename=_filename(raw, "default_model_filename", where),
        raw=raw,
        source=where,
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


def _filename(raw: Json, key: str, where: Source) -> str:
    name: str = raw.get(key, "")
    if name and (name in (".", "..") or "/" in name or "\0" in name):
        raise where.error(f"{key} {name!r} must be the name of a file, without a path", key)
    return name


def _tensors(entries: Sequence[Json], where: Source) -> tuple[TensorConfig, ...]:
    found = tuple(_tensor(entry, where.at(at)) for at, entry in enumerate(entries))
    names = [tensor.name for tensor in found]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise where.error(f"tensor {name!r} is declared twice", at)
    return found


def _tensor(entry: Json, where: Source) -> TensorConfig:
    name = entry.get("name", "")
    if not name:
        raise where.error("an input or output has no name")
    kind = entry.get("data_type", "TYPE_INVALID")
    dims = tuple(entry.get("dims", ()))
    if any(dim < -1 or dim == 0 for dim in dims):
        raise where.error(f"tensor {name!r}: dims must be positive or -1, got {list(dims)}", "dims")
    reshape = entry.get("reshape")
    return TensorConfig(
        name=name,
        datatype="" if kind == "TYPE_INVALID" else DATATYPES[kind],
        dims=dims,
        reshape=None if reshape is None else tuple(reshape.get("shape", ())),
        optional=bool(entry.get("optional", False)),
        ragged=bool(entry.get("allow_ragged_batch", False)),
        label_filename=_filename(entry, "label_filename", where),
    )


def _versions(raw: Json, where: Source) -> VersionPolicy:
    if "all" in raw:
        return VersionPolicy(all=True)
    if "specific" in raw:
        wanted = tuple(raw["specific"].get("versions", ()))
        if not wanted:
            raise where.error("version_policy.specific needs at least one version", "specific")
        return VersionPolicy(specific=wanted)
    latest = raw.get("latest", {}).get("num_versions", 1)
    if latest < 1:
        raise where.error("version_policy.latest.num_versions must be at least 1", "latest")
    return VersionPolicy(latest=latest)


def _instances(groups: Sequence[Json], where: Source) -> int:
    for at, group in enumerate(groups):
        if int(group.get("count", 0)) < 0:
            raise where.error("instance_group count must be at least 1", at, "count")
    return max(sum(count_of(each) for each in groups if not each.get("passive")), 1)


def count_of(group: Json) -> int:
    """The instances of a group; 0 is what protobuf has for a count that is not written: one."""
    return int(group.get("count", 0)) or 1


def _policy(raw: Json, max_batch_size: int | None, where: Source) -> BatchPolicy | None:
    """The batch policy that is written down, or None where nothing is."""
    batching = raw.get("dynamic_batching")
    if batching is None:
        return None if max_batch_size is None else BatchPolicy(max_rows=max_batch_size)
    preferred = tuple(sorted(batching.get("preferred_batch_size", ())))
    limit = max_batch_size or 0
    if any(size < 1 or size > limit for size in preferred):
        raise where.error(
            f"dynamic batching preferred sizes must be in 1..max_batch_size ({limit}), "
            f"got {list(preferred)}",
            "dynamic_batching",
            "preferred_batch_size",
        )
    levels = int(batching.get("priority_levels", 0))
    default_level = int(batching.get("default_priority_level", 0))
    if levels and not 1 <= default_level <= levels:
        raise where.error(
            f"default priority level must be in 1..{levels}, got {default_level}",
            "dynamic_batching",
            "default_priority_level",
        )
    return BatchPolicy(
        max_rows=limit,
        merge=limit > 0,
        preferred_rows=preferred,
        max_delay_s=int(batching.get("max_queue_delay_microseconds", 0)) / 1e6,
        in_order=bool(batching.get("preserve_ordering", False)),
        priority_levels=levels,
        default_level=default_level,
        level=_level(batching.get("default_queue_policy", {})),
        levels=_levels(
            batching.get("priority_queue_policy", {}),
            levels,
            where.at("dynamic_batching", "priority_queue_policy"),
        ),
    )


def _levels(raw: Json, most: int, where: Source) -> dict[int, LevelPolicy]:
    """The policies of single levels, by their numbers."""
    for level in raw:
        if not str(level).isdecimal():
            raise where.error(f"a priority level is a whole number, got {level!r}", level)
        if most and not 1 <= int(level) <= most:
            raise where.error(f"a priority level must be in 1..{most}, got {level}", level)
    return {int(level): _level(entry) for level, entry in raw.items()}


def _level(raw: Json) -> LevelPolicy:
    return LevelPolicy(
        max_queue_size=int(raw.get("max_queue_size", 0)),
        timeout_s=int(raw.get("default_timeout_microseconds", 0)) / 1e6,
        allow_timeout_override=bool(raw.get("allow_timeout_override", False)),
        on_timeout="delay" if raw.get("timeout_action") == "DELAY" else "reject",
    )
