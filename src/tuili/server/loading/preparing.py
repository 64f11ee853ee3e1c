"""Prepares a model version: find its file, compile it if need be, load its instances, warm them up.

All of this blocks and runs on a thread; only what it returns touches the event loop.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from tuili import backends
from tuili.backends import BackendOptions, Executable
from tuili.errors import InvalidModel, TuiliError, Unsupported
from tuili.precision import EXACT, PRECISIONS
from tuili.server.execution.hosts import Host, HostSpec
from tuili.server.execution.outbox import Outbox
from tuili.server.loading.completion import Completed, complete, declared_specs, whole_json
from tuili.server.loading.environments import PARAMETER, environment_of
from tuili.server.loading.instances import cores_of, threads_of
from tuili.server.loading.layouts import apart, batch_input_specs, layout_of
from tuili.server.loading.stateful import sequence_policy, sequence_specs
from tuili.server.loading.together import close_all, together
from tuili.server.options import ServerOptions
from tuili.server.protocol.datatypes import NUMPY
from tuili.server.protocol.messages import Array
from tuili.server.protocol.signature import Signature
from tuili.server.repository import config as configuration
from tuili.server.repository.compiling import cache_folder, compiled
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.keeping import kept
from tuili.server.repository.layout import model_file
from tuili.server.repository.model_parameters import EXECUTORS, choice
from tuili.server.repository.source import Source
from tuili.server.scheduling.layout import Layout
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.sequences import SequencePolicy

_log = logging.getLogger("tuili.server")

_WARM_RUNS: Final = 8
_WARM_BUDGET_S: Final = 5e-3
# Longer runs are never on the loop: no need to know more exactly.
_WARM_LIMIT_S: Final = 1e-3
# Back ends whose models are wholly described by their configuration.
_FILELESS: Final = ("identity",)
# Back ends that map their files, for as long as they serve them.
_MAPPED: Final = ("tuili", "mixed")
# Back ends whose code is ours: they run in the server's own process unless asked otherwise.
_OWN_CODE: Final = ("tuili", "identity")


@dataclass(frozen=True, slots=True)
class Place:
    """Which file, for which back end."""

    folder: Path
    version: int
    backend: str
    path: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model version, loaded and warm."""

    config: ModelConfig
    completed: Completed
    sequences: SequencePolicy | None
    instances: tuple[Executable, ...]
    hosts: tuple[Host, ...]
    placement: Placement
    layout: Layout | None
    # Loads one more instance: the one of this number.
    another: Callable[[int], Host | Executable]
    place: Place

    def warm_another(self, number: int) -> Host | Executable:
        """One more instance, that of this number, as warm as the first ones were."""
        model = self.another(number)
        try:
            warm_all(self.place, self.config, self.completed.signature, self.placement, [model])
        except BaseException:
            close_all([model])
            raise
        return model

    def discard(self) -> None:
        """Let go of everything: there will be no version of it."""
        close_all((*self.hosts, *self.instances))


OnCalls = Callable[[Outbox], None]


def prepare(
    folder: Path,
    config: ModelConfig,
    version: int,
    options: ServerOptions,
    on_calls: OnCalls | None = None,
) -> Prepared:
    """Everything between a folder and a model that can answer; `on_calls` is for its hosts."""
    causes: list[TuiliError] = []
    for backend, path in candidates(folder / str(version), config, options, causes):
        served = path
        if backend in _MAPPED and path.is_relative_to(folder):
            served = kept(path, folder / str(version), cache_folder(options.cache))
        try:
            place = Place(folder, version, backend, served)
            return prepare_at(place, config, options, on_calls)
        except TuiliError as error:
            # The next candidate may be able to; if there is none, the first cause tells most.
            error.args = (str(error).replace(str(served), str(path)),)
            causes.append(error)
            if backend != "mixed" and not isinstance(error, Unsupported):
                break
    raise causes[0]


def prepare_at(
    place: Place, config: ModelConfig, options: ServerOptions, on_calls: OnCalls | None = None
) -> Prepared:
    """Load the instances, complete the configuration from them, warm them up."""
    folder, backend = place.folder, place.backend
    settings = backend_options(config, options)
    hosts: list[Host] = []
    models: list[Executable] = []
    try:
        own_process = isolated(backend, config, options)
        environment = None
        if backend == "python":
            environment = environment_of(config, folder, cache_folder(options.cache))
        if environment is not None and not own_process:
            raise InvalidModel(
                f"model '{config.name}': {PARAMETER} needs a process of the model's own, but "
                "its isolation is 'none'"
            )

        def another(number: int) -> Host | Executable:
            mine = replace(settings, instance=number)
            if not own_process:
                return backends.load(backend, place.path, mine)
            spec = host_spec(f"{config.name}-{place.version}", backend, place.path, mine)
            spec = replace(spec, cores=cores_of(config, number), environment=environment)
            host = Host(spec, on_calls=on_calls)
            hosts.append(host)
            host.start()
            return host

        # What a configuration leaves open, the first instance may fill in: then the others, which
        # were told less, are loaded anew.
        models += together(another, range(config.instances if own_process else 1))
        told = settings
        config, settings = _completed_by(models[0], config, settings, options)
        if settings != told:
            close_all(models[1:])
            del models[1:]
        rest = range(len(models), config.instances)
        models += together(another, rest) if own_process else map(another, rest)
        hosts[:] = [each for each in models if isinstance(each, Host)]
        inputs, outputs = models[0].inputs, models[0].outputs
        if backend == "python":
            inputs, outputs = settings.declared_inputs, settings.declared_outputs
        completed = complete(config, backend, inputs, outputs, folder)
        layout = layout_of(config, inputs, outputs)
        sequences = sequence_policy(config, completed.policy, folder)
        placement = Placement(allowed=not hosts)
        warm_all(place, config, completed.signature, placement, models)
    except BaseException:
        close_all(hosts)
        raise
    own = () if hosts else tuple(models)
    return Prepared(
        config, completed, sequences, own, tuple(hosts), placement, layout, another, place
    )


def _completed_by(
    model: Executable, config: ModelConfig, settings: BackendOptions, options: ServerOptions
) -> tuple[ModelConfig, BackendOptions]:
    """The configuration with what the model itself filled in."""
    text: str = getattr(model, "config_json", "")
    if not text:
        return config, settings
    raw = json.loads(text)
    config = configuration.from_json(config.name, raw, Source(f"auto_complete of {config.name!r}"))
    return config, backend_options(config, options)


def backend_options(config: ModelConfig, options: ServerOptions) -> BackendOptions:
    """What the back end is told of the configuration."""
    extra_inputs, extra_outputs = sequence_specs(config)
    extra_inputs += batch_input_specs(config)
    return BackendOptions(
        threads=threads_of(config, options),
        parameters=config.parameters,
        declared_inputs=declared_specs(config.inputs, config.max_batch_size) + extra_inputs,
        declared_outputs=declared_specs(config.outputs, config.max_batch_size) + extra_outputs,
        max_batch_size=config.max_batch_size or 0,
        decoupled=config.decoupled,
        config_json=json.dumps(whole_json(config)),
    )


def isolated(backend: str, config: ModelConfig, options: ServerOptions) -> bool:
    """Whether the model lives in a process of its own."""
    wanted = config.parameters.get("isolation", options.isolation)
    if wanted not in ("auto", "process", "none"):
        raise InvalidModel(
            f"model '{config.name}': parameter 'isolation' must be auto, process or none, "
            f"got {wanted!r}"
        )
    return wanted == "process" or (wanted == "auto" and backend not in _OWN_CODE)


def host_spec(name: str, backend: str, path: Path, settings: BackendOptions) -> HostSpec:
    """The host of a model, with the limits that its configuration sets."""

    def number(key: str, default: str = "0") -> float:
        text = settings.parameters.get(key, default)
        try:
            return float(text)
        except ValueError:
            raise InvalidModel(f"parameter {key!r} must be a number, got {text!r}") from None

    return HostSpec(
        name,
        backend,
        path,
        settings,
        load_timeout_s=number("host_load_timeout_s", "1200"),
        run_timeout_s=number("host_run_timeout_s"),
        max_rss_bytes=int(number("host_max_rss_mb") * (1 << 20)),
    )


def candidates(
    version: Path, config: ModelConfig, options: ServerOptions, causes: list[TuiliError]
) -> Iterator[tuple[str, Path]]:
    """The back ends that may run this version, best first, each with the file for it.

    An ONNX file is compiled here, when its turn comes; what hinders that is added to `causes`.
    """
    if config.backend in _FILELESS:
        yield config.backend, version
        return
    path = model_file(version, config.model_filename)
    source = path / "model.onnx" if path.is_dir() and path.name == "model.onnx" else path
    if source.suffix == ".onnx":
        yield from _onnx_candidates(source, config, options, causes)
    elif path.suffix == ".py":
        yield "python", path
    elif config.backend in ("", "tuili", "onnxruntime"):
        yield "tuili", path
        yield "mixed", path
    else:
        yield config.backend, path


def _onnx_candidates(
    source: Path, config: ModelConfig, options: ServerOptions, causes: list[TuiliError]
) -> Iterator[tuple[str, Path]]:
    executor = choice(config, "executor", options.onnx_executor, EXECUTORS)
    precision = choice(config, "precision", EXACT, PRECISIONS)
    if executor != "onnxruntime":
        try:
            artifact = compiled(source, cache_folder(options.cache), apart(config), precision)
        except TuiliError as error:
            causes.append(error)
        else:
            yield "tuili", artifact
            yield "mixed", artifact
    fallback = executor == "auto" and find_spec("onnxruntime") is not None
    if fallback:
        _log.warning("%s runs in ONNX Runtime, as tuili cannot: %s", source, causes[0])
    if fallback or executor == "onnxruntime":
        yield "onnxruntime", source


def warm_all(
    place: Place,
    config: ModelConfig,
    signature: Signature,
    placement: Placement,
    models: Sequence[Executable],
) -> None:
    """Let instances run on zeros and on what the configuration gives; its failure is theirs."""
    if place.backend != "python":
        # A user's code may count its runs, or call other models: it runs when it is asked.
        for model in models:
            warm(model, signature, placement)
    for entry in config.warmups:
        run_warmup(place.folder, config, signature, entry, models)


def warm(model: Executable, signature: Signature, placement: Placement) -> None:
    """Run on zeros, so that caches are hot and the time is known; 1, 2, 4 ... rows while quick.

    Where other dims than the batch are open, no guess at them is safe: such a model is measured in
    use, and warmed by what its configuration gives.
    """
    if any(-1 in rule.dims for rule in signature.inputs.values()):
        return
    rows = 1
    while rows <= max(signature.max_batch_size, 1):
        batch = {
            rule.name: zeros(rule.datatype, _backend_shape(signature, rule.name, rule.dims, rows))
            for rule in signature.inputs.values()
        }
        try:
            best = _quickest_s(model, batch)
        except TuiliError as error:
            _log.debug("%s: no measuring at warm-up: %s", signature.model, error)
            return
        placement.record(sum(array.size for array in batch.values()), best)
        if best > _WARM_LIMIT_S:
            return
        rows *= 2


def _quickest_s(model: Executable, batch: dict[str, Array]) -> float:
    """The time of the quickest of a few runs."""
    best = float("inf")
    started = time.monotonic()
    for _ in range(_WARM_RUNS):
        before = time.monotonic_ns()
        model.run(batch)
        best = min(best, (time.monotonic_ns() - before) / 1e9)
        if time.monotonic() - started > _WARM_BUDGET_S:
            break
    return best


def run_warmup(
    folder: Path,
    config: ModelConfig,
    signature: Signature,
    entry: dict[str, Any],
    models: Sequence[Executable],
) -> None:
    """One configured warm-up sample on every instance; its failure fails the load."""
    rows = int(entry.get("batch_size", 1)) or 1
    batch: dict[str, Array] = {}
    for name, wanted in entry.get("inputs", {}).items():
        rule = signature.inputs.get(name)
        if rule is None:
            raise InvalidModel(
                f"model '{config.name}': warm-up {entry.get('name', '')!r} has the unknown input "
                f"{name!r}"
            )
        dims = tuple(wanted.get("dims") or rule.dims)
        shape = _backend_shape(signature, name, dims, rows)
        batch[name] = _warm_data(folder, rule.datatype, shape, wanted)
    for _ in range(max(int(entry.get("count", 1)), 1)):
        for model in models:
            try:
                model.run(batch)
            except TuiliError as error:
                raise InvalidModel(
                    f"model '{config.name}': warm-up {entry.get('name', '')!r} failed: {error}"
                ) from error


def _warm_data(
    folder: Path, datatype: str, shape: tuple[int, ...], wanted: dict[str, Any]
) -> Array:
    filename = wanted.get("input_data_file", "")
    if filename:
        path = folder / "warmup" / filename
        if "/" in filename or not path.is_file():
            raise InvalidModel(f"warm-up data {path} is missing")
        raw = path.read_bytes()
        return np.frombuffer(raw, NUMPY[datatype])[: int(np.prod(shape))].reshape(shape)
    if wanted.get("random_data") and datatype != "BYTES":
        return np.random.default_rng(0).random(shape).astype(NUMPY[datatype])
    return zeros(datatype, shape)


def _backend_shape(
    signature: Signature, name: str, dims: tuple[int, ...], rows: int
) -> tuple[int, ...]:
    concrete = tuple(max(dim, 1) for dim in dims)
    inner = signature.inputs[name].backend_dims(concrete)
    return (rows, *inner) if signature.max_batch_size else inner


def zeros(datatype: str, shape: tuple[int, ...]) -> Array:
    """Zeros, or empty BYTES."""
    if datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, NUMPY[datatype])
