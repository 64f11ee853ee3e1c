"""What is in effect for a model, where each setting comes from, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from tuili.server.loading.launching import Live
from tuili.server.options import ServerOptions
from tuili.server.protocol.signature import TensorRule, dims_text
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.model_parameters import MODEL_PARAMETERS
from tuili.server.repository.source import Place, Source

Json = dict[str, Any]


class Setting(NamedTuple):
    """One row: its name, the value in effect, where that was decided, and its meaning."""

    name: str
    value: str
    origin: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Explained:
    """A loaded model with the configuration and options that it was loaded by."""

    config: ModelConfig
    live: Live
    served: Sequence[str]
    options: ServerOptions

    @property
    def effective(self) -> Json:
        """The whole configuration with what the model and the defaults added."""
        return self.live.config

    def origin(self, *place: str | int, otherwise: str = "default") -> str:
        """The file and line that set this, or else where it comes from."""
        raw: Any = self.config.raw
        for step in place:
            if not isinstance(raw, dict) or step not in raw:
                return otherwise
            raw = raw[step]
        return _short(self.config.source.at(*place))


def _short(source: Source) -> str:
    """The file by its name alone: its folder is known."""
    return str(replace(source, name=Path(source.name).name))


def settings(model: Explained) -> list[Setting]:
    """Every setting that is in effect, in the order of a request's life."""
    rows: list[Setting] = []
    for explain in _ROWS:
        rows += explain(model)
    return rows


# ------------------------------------------------------------------------------------- rows


def _backend(model: Explained) -> list[Setting]:
    name = model.effective["backend"] or model.effective["platform"]
    meaning = _BACKENDS.get(name, "a back end of that name")
    return [Setting("backend", name, model.origin("backend", otherwise="the model file"), meaning)]


def _versions(model: Explained) -> list[Setting]:
    policy = model.config.versions
    told = "all of them" if policy.all else f"the newest {policy.latest}"
    told = f"these only: {list(policy.specific)}" if policy.specific else told
    served = ", ".join(model.served)
    meaning = f"served: {told}; a request without a version goes to the newest"
    return [Setting("versions", served, model.origin("version_policy"), meaning)]


def _tensors(model: Explained) -> list[Setting]:
    signature = model.live.signature
    return [
        Setting(f"{role} {rule.name}", _tensor_text(rule), _tensor_origin(model, role, rule), "")
        for role, rules in (("input", signature.inputs), ("output", signature.outputs))
        for rule in rules.values()
    ]


def _tensor_text(rule: TensorRule) -> str:
    notes = [name for name in ("optional", "ragged") if getattr(rule, name)]
    return " ".join([rule.datatype, dims_text(rule.dims), *notes])


def _tensor_origin(model: Explained, role: str, rule: TensorRule) -> str:
    declared = [entry.get("name") for entry in model.config.raw.get(role, ())]
    if rule.name not in declared:
        return "the model file"
    return _short(model.config.source.at(role, declared.index(rule.name)))


def _batching(model: Explained) -> list[Setting]:
    limit = model.live.signature.max_batch_size
    derived = "the model file: " + (
        "all tensors lead with the same open dim" if limit else "no common leading dim"
    )
    otherwise = "default" if "input" in model.config.raw else derived
    meaning = (
        "rows in one run at most; shapes above are without the batch dim"
        if limit
        else "no batch dim: every request runs alone"
    )
    found = [
        Setting(
            "max_batch_size",
            str(limit),
            model.origin("max_batch_size", otherwise=otherwise),
            meaning,
        )
    ]
    if limit:
        found.append(_joining(model))
    return found


def _joining(model: Explained) -> Setting:
    raw = model.config.raw.get("dynamic_batching")
    if raw is not None:
        delay = int(raw.get("max_queue_delay_microseconds", 0))
        preferred = raw.get("preferred_batch_size", [])
        meaning = f"requests are joined, waiting up to {delay} us for more"
        meaning += f", preferably as {preferred} rows" if preferred else ""
        return Setting("batching", "dynamic", model.origin("dynamic_batching"), meaning)
    if model.config.policy is None:
        meaning = "what waits is joined as far as the measured time of a run says that it pays"
        return Setting("batching", "adaptive", "default", meaning)
    meaning = "requests are not joined; write dynamic_batching to join them"
    return Setting("batching", "off", model.origin("max_batch_size"), meaning)


def _queue(model: Explained) -> list[Setting]:
    policy = model.config.policy
    if policy is None or "dynamic_batching" not in model.config.raw:
        return [Setting("queue", "unbounded", "default", "requests wait in order of arrival")]
    place: Place = ("dynamic_batching", "default_queue_policy")
    level = policy.level
    size = str(level.max_queue_size) if level.max_queue_size else "unbounded"
    late = f"after {level.timeout_s:g} s: {level.on_timeout}" if level.timeout_s else "no timeout"
    rows = [Setting("queue", size, model.origin(*place), f"waiting requests at most; {late}")]
    if policy.priority_levels:
        where = model.origin("dynamic_batching", "priority_levels")
        meaning = f"1 goes first; a request that names none is {policy.default_level}"
        rows.append(Setting("priority levels", str(policy.priority_levels), where, meaning))
    return rows


def _instances(model: Explained) -> list[Setting]:
    if model.effective["platform"] == "ensemble":
        return []
    count = str(model.config.instances)
    hosted = bool(model.live.hosts)
    where = "a process of its own" if hosted else "the server's process"
    safe = "a crash costs a restart of it" if hosted else "native code, called without the GIL"
    isolation = model.origin("parameters", "isolation", otherwise="--isolation")
    return [
        Setting("instances", count, model.origin("instance_group"), "runs at the same time"),
        Setting("runs in", where, isolation, safe),
    ]


def _features(model: Explained) -> list[Setting]:
    return [
        Setting(name, "on", model.origin(name), meaning)
        for name, meaning in _FEATURES.items()
        if model.config.raw.get(name)
    ]


def _parameters(model: Explained) -> list[Setting]:
    return [
        Setting(
            f"parameter {name}",
            value,
            model.origin("parameters", name),
            MODEL_PARAMETERS.get(name, "for the model itself; tuili does not read it"),
        )
        for name, value in model.config.parameters.items()
    ]


_BACKENDS: Final = {
    "tuili": "native code, compiled from the model; no compiler runs when an artifact is loaded",
    "mixed": "native code, with steps that Python runs: tuili inspect lists them",
    "onnxruntime": "ONNX Runtime, in a process of its own",
    "python": "a Python model, in a process of its own",
    "identity": "gives back its inputs",
    "ensemble": "requests to other models",
}
_FEATURES: Final = {
    "sequence_batching": "requests of one sequence run in order, with the state that they left",
    "ensemble_scheduling": "a step runs as soon as its tensors are there",
    "response_cache": "equal requests are answered from memory",
    "model_warmup": "samples that run before the version goes live",
    "model_transaction_policy": "decoupled: answers any number of times, over a stream",
}
_ROWS: Final[tuple[Callable[[Explained], list[Setting]], ...]] = (
    _backend, _versions, _tensors, _batching, _queue, _instances, _features, _parameters,
)  # fmt: skip
