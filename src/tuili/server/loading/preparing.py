"""Prepares a model version: find its file, compile it if need be, load its instances, warm them up.

All of this blocks and runs on a thread; only what it returns touches the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tuili import backends
from tuili.backends import BackendOptions, Executable
from tuili.errors import InvalidModel, TuiliError, Unsupported
from tuili.server.execution.host_child import HostSpec
from tuili.server.execution.hosts import Host
from tuili.server.execution.outbox import Outbox
from tuili.server.loading.candidates import candidates
from tuili.server.loading.completion import Completed, complete, declared_specs
from tuili.server.loading.environments import PARAMETER, environment_of
from tuili.server.loading.full_form import whole_json
from tuili.server.loading.instances import cores_of, threads_of
from tuili.server.loading.layouts import batch_input_specs, layout_of
from tuili.server.loading.python_names import check_name
from tuili.server.loading.stateful import sequence_policy, sequence_specs
from tuili.server.loading.together import close_all, together
from tuili.server.loading.warming import warm_all
from tuili.server.options import ServerOptions
from tuili.server.repository import config as configuration
from tuili.server.repository.compiling import cache_folder
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.keeping import kept
from tuili.server.repository.source import Source
from tuili.server.scheduling.layout import Layout
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.sequences import SequencePolicy

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

    def warm(self, models: Sequence[Executable]) -> None:
        """Let instances run before they are asked; raises what a configured warm-up raises."""
        warm_all(
            self.config,
            self.completed.signature,
            self.placement,
            models,
            self.place.folder,
            on_zeros=self.place.backend != "python",
        )

    def warm_another(self, number: int) -> Host | Executable:
        """One more instance, that of this number, as warm as the first ones were."""
        model = self.another(number)
        try:
            self.warm([model])
        except BaseException:
            close_all([model])
            raise
        return model

    def discard(self) -> None:
        """Let go of everything: there will be no version of it."""
        close_all((*self.hosts, *self.instances))


OnCalls = Callable[[Outbox, Host], None]
Begun = Callable[[Host], None]


def prepare(
    folder: Path,
    config: ModelConfig,
    version: int,
    options: ServerOptions,
    on_calls: OnCalls | None = None,
    begun: Begun | None = None,
) -> Prepared:
    """Everything between a folder and a model that can answer.

    `on_calls` is for its hosts; `begun` hears of each that begins to load.
    """
    causes: list[TuiliError] = []
    for backend, path in candidates(folder / str(version), config, options, causes):
        served = path
        if backend in _MAPPED and path.is_relative_to(folder):
            served = kept(path, folder / str(version), cache_folder(options.cache))
        try:
            place = Place(folder, version, backend, served)
            return prepare_at(place, config, options, on_calls, begun)
        except TuiliError as error:
            # The next candidate may be able to; if there is none, the first cause tells most.
            error.args = (str(error).replace(str(served), str(path)),)
            causes.append(error)
            if backend != "mixed" and not isinstance(error, Unsupported):
                break
    raise causes[0]


def prepare_at(
    place: Place,
    config: ModelConfig,
    options: ServerOptions,
    on_calls: OnCalls | None = None,
    begun: Begun | None = None,
) -> Prepared:
    """Load the instances, complete the configuration from them, warm them up."""
    settings = backend_options(config, options)
    loading = _Loading(place, config, settings, options, on_calls)
    loading.begun = begun or _nobody
    try:
        # What a configuration leaves open, the first instance may fill in: then the others, which
        # were told less, are loaded anew.
        models = loading.side_by_side(range(config.instances if loading.apart else 1))
        told = settings
        config, settings = _completed_by(models[0], config, settings, options)
        if settings != told:
            close_all(models[1:])
            del models[1:]
        rest = range(len(models), config.instances)
        models += loading.side_by_side(rest) if loading.apart else map(loading.another, rest)
        return _completed(loading, config, settings, models)
    except BaseException:
        close_all(loading.started)
        raise


def _nobody(_: Host) -> None:
    """Nobody wants to know."""


class _Loading:
    """Loads instances of one version, here or `apart` in hosts; `started` are all of them."""

    def __init__(
        self,
        place: Place,
        config: ModelConfig,
        settings: BackendOptions,
        options: ServerOptions,
        on_calls: OnCalls | None,
    ) -> None:
        self.place = place
        self.apart = isolated(place.backend, config, options)
        self.started: list[Host | Executable] = []
        self.begun: Begun = _nobody
        self._config = config
        self._settings = settings
        self._on_calls = on_calls
        self._environment = None
        if place.backend == "python":
            if options.compat == "triton":
                check_name(config.name)
            self._environment = environment_of(config, place.folder, cache_folder(options.cache))
        if self._environment is not None and not self.apart:
            raise InvalidModel(
                f"model '{config.name}': {PARAMETER} needs a process of the model's own, but "
                "its isolation is 'none'"
            )

    def another(self, number: int) -> Host | Executable:
        """The instance of this number."""
        place, settings = self.place, replace(self._settings, instance=number)
        if not self.apart:
            model = backends.load(place.backend, place.path, settings)
            self.started.append(model)
            return model
        name = f"{self._config.name}-{place.version}"
        spec = host_spec(name, place.backend, place.path, settings)
        cores = cores_of(self._config, number)
        host = Host(
            replace(spec, cores=cores, environment=self._environment), on_calls=self._on_calls
        )
        self.started.append(host)
        self.begun(host)
        host.start()
        return host

    def side_by_side(self, numbers: Sequence[int]) -> list[Host | Executable]:
        """The instances of these numbers."""
        return together(self.another, numbers)


def _completed(
    loading: _Loading,
    config: ModelConfig,
    settings: BackendOptions,
    models: Sequence[Host | Executable],
) -> Prepared:
    """The model that these instances make, warm."""
    place = loading.place
    hosts = tuple(each for each in models if isinstance(each, Host))
    inputs, outputs = models[0].inputs, models[0].outputs
    if place.backend == "python":
        inputs, outputs = settings.declared_inputs, settings.declared_outputs
    completed = complete(config, place.backend, inputs, outputs, place.folder)
    layout = layout_of(config, inputs, outputs)
    sequences = sequence_policy(config, completed.policy, place.folder)
    placement = Placement(allowed=not hosts)
    own = () if hosts else tuple(models)
    prepared = Prepared(
        config, completed, sequences, own, hosts, placement, layout, loading.another, place
    )
    prepared.warm(models)
    return prepared


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
    return wanted == "process" or (wanted == "auto" and backend not in _OWN_CODE)


def host_spec(name: str, backend: str, path: Path, settings: BackendOptions) -> HostSpec:
    """The host of a model, with the limits that its configuration sets."""

    def number(key: str, default: str = "0") -> float:
        return float(settings.parameters.get(key, default))

    return HostSpec(
        name,
        backend,
        path,
        settings,
        load_timeout_s=number("host_load_timeout_s", "1200"),
        run_timeout_s=number("host_run_timeout_s"),
        max_rss_bytes=int(number("host_max_rss_mb") * (1 << 20)),
    )
