"""Launcher: makes a running model of a folder: a servable with its instances, or an ensemble."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from tuili.errors import InvalidModel, TuiliError
from tuili.server.execution.hosts import Host
from tuili.server.execution.instances import Instance
from tuili.server.execution.open_calls import OpenCall
from tuili.server.execution.running import Runner
from tuili.server.loading.completion import complete_ensemble
from tuili.server.loading.elastic import Added, Elastic, remembered
from tuili.server.loading.instances import (
    claims_by_runner,
    cores_of,
    elasticity_of,
    instances_of,
)
from tuili.server.loading.off_loop import off_loop
from tuili.server.loading.pipeline_plan import PipelinePlan, plan
from tuili.server.loading.pipelines import (
    function_servable,
    host_changed,
    start_functions,
    tensor_configs,
)
from tuili.server.loading.preparing import Place, Prepared, prepare, prepare_at
from tuili.server.loading.rehearsing import NewInstances, rehearse
from tuili.server.loading.standing import standing_of
from tuili.server.loading.turns import Load as Turn
from tuili.server.loading.turns import Turns
from tuili.server.model_calls import CallAnswerer
from tuili.server.options import ServerOptions
from tuili.server.registry.checking import check
from tuili.server.repository import pipeline
from tuili.server.repository.compiling import cache_folder
from tuili.server.repository.config import ModelConfig, step_models
from tuili.server.repository.layout import fingerprint
from tuili.server.repository.lifecycle import Repository
from tuili.server.repository.namespaces import with_steps
from tuili.server.scheduling.cache import ResponseCache
from tuili.server.scheduling.dag import Dag
from tuili.server.scheduling.holding import hold_of
from tuili.server.scheduling.loads import Load, LoadOf
from tuili.server.scheduling.lost import Lost
from tuili.server.scheduling.pacing import Pace
from tuili.server.scheduling.resources import Resources
from tuili.server.scheduling.scaling import Scaler
from tuili.server.serving.admitting import door_of
from tuili.server.serving.ensemble import (
    Ensemble,
    Submit,
    SubmitStream,
    check_types,
    dag_of,
    inherit_labels,
    note_optional,
)
from tuili.server.serving.ensemble_cache import EnsembleCache
from tuili.server.serving.ensemble_fits import fits_of
from tuili.server.serving.servable import Servable
from tuili.server.serving.shared_cache import SharedAnswers, SharedCache, content_digest
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics

Live = Servable | Ensemble
Started = TypeVar("Started", bound=Live)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a running version came from; `digest` is of its folder's state before it was read.

    It leads to nothing that runs: it is kept by the version, which would then be kept by itself.
    """

    config: ModelConfig
    place: Place
    digest: str


def digest_of(folder: Path) -> str:
    """Of the state of a model's folder: another one when any file of it has changed."""
    return hashlib.sha256(repr(fingerprint(folder)).encode()).hexdigest()


class Launcher:
    """What the repository calls for each version that it loads."""

    repository: Repository[Any]
    answerer: CallAnswerer | None = None

    def __init__(self, options: ServerOptions, submit: Submit, submit_stream: SubmitStream) -> None:
        self._options = options
        self.submit = submit
        self.submit_stream = submit_stream
        self._cache = ResponseCache(options.response_cache_bytes, options.response_cache_ttl_s)
        url, ttl_s = options.response_cache_url, options.response_cache_ttl_s
        timeout_s = options.response_cache_timeout_s
        self._shared = SharedCache(url, ttl_s, timeout_s) if url else None
        limited = options.rate_limit != "off"
        self._resources = Resources(dict(options.rate_limit_resources)) if limited else None
        # Two models at a time: compiling and warming take a core each.
        self.turns = Turns(2)
        # Statistics outlive a reload, as the counters of a scrape must not fall.
        self._statistics: dict[tuple[str, str], Statistics] = {}
        self._lost = Lost()
        self.origins: WeakKeyDictionary[Servable, Origin] = WeakKeyDictionary()

    async def launch(self, folder: Path, config: ModelConfig, version: int) -> Live:
        """A running version, warm."""
        live = await self._launch(folder, config, version)
        return await self._rehearsed(live, folder, self.repository.loads.of(config.name))

    async def _launch(self, folder: Path, config: ModelConfig, version: int) -> Live:
        await asyncio.to_thread(check, folder, version, self._options.require_signature)
        path = folder / str(version) / pipeline.FILE
        if path.exists():
            return await self._launch_pipeline(path, config, version)
        if config.backend == "ensemble":
            return await self._launch_ensemble(config, version)
        digest = await asyncio.to_thread(digest_of, folder) if self._options.frontends > 1 else ""
        async with self.turns.taken(config.name) as load:
            listener = self.answerer.listener() if self.answerer is not None else None
            begun = partial(_begun, load, self.repository.loads.of(config.name))
            prepared = await off_loop(
                prepare, folder, config, version, self._options, listener, begun
            )
        servable = await self._servable(prepared, folder, version)
        self.origins[servable] = Origin(prepared.config, prepared.place, digest)
        return servable

    async def again(self, place: Place, config: ModelConfig) -> Servable:
        """A version from just the file that another process has found for it."""
        async with self.turns.taken(config.name):
            prepared = await off_loop(prepare_at, place, config, self._options)
        servable = await self._servable(prepared, place.folder, place.version)
        return await self._rehearsed(servable, place.folder)

    async def _servable(self, prepared: Prepared, folder: Path, version: int) -> Servable:
        """What is prepared, as a version that takes requests; nothing is left of one that fails."""
        try:
            servable = await self._made(prepared, folder, version)
        except BaseException:
            await asyncio.to_thread(prepared.discard)
            raise
        try:
            for host in prepared.hosts:
                host.attach(partial(host_changed, servable, host))
            self._make_elastic(prepared.config, servable, prepared, folder)
        except BaseException:
            await servable.close()
            raise
        return servable

    async def _made(self, prepared: Prepared, folder: Path, version: int) -> Servable:
        config = prepared.config
        name = f"{config.name}-{version}"
        slots = [slot for host in prepared.hosts for slot in host.slots]
        instances: list[Runner] = list(slots)
        if not slots:
            instances += instances_of(config, prepared.instances, name, self._options)
        return Servable(
            prepared.completed.signature,
            str(version),
            instances,
            await self._terms(prepared, folder / str(version)),
            self.statistics(config.name, str(version)),
            config=prepared.completed.json,
            placement=prepared.placement,
            hosts=prepared.hosts,
            resources=self._resources,
            claims=claims_by_runner(config, instances) if self._resources is not None else {},
        )

    async def _terms(self, prepared: Prepared, folder: Path) -> Terms:
        """On which terms the version in that folder takes requests."""
        config = prepared.config
        adaptive = config.policy is None and prepared.sequences is None
        return Terms(
            prepared.completed.policy,
            decoupled=config.decoupled,
            idempotent=config.parameters.get("idempotent", "true") != "false",
            sequences=prepared.sequences,
            lost=self._lost,
            adaptive=adaptive,
            cache=self._cache if self._caches(config) else None,
            shared=await self._shared_answers(folder, config),
            layout=prepared.layout,
            pace=_pace_of(config) if adaptive else None,
            door=door_of(config, config.instances, self.submit),
            hold=hold_of(os.environ),
        )

    def _make_elastic(
        self, config: ModelConfig, servable: Servable, prepared: Prepared, folder: Path
    ) -> None:
        """Let the number of instances follow the load, where the configuration says so."""
        elasticity = elasticity_of(config)
        if elasticity is None:
            return
        if prepared.sequences is not None:
            raise InvalidModel(
                f"model '{config.name}': max_instances does not work with sequences, which belong "
                "to their instance"
            )
        loop = asyncio.get_running_loop()

        def another(number: int) -> Added:
            model = prepared.warm_another(number)
            if not isinstance(model, Host):
                name = f"{config.name}-{servable.version}"
                return [Instance(model, name, cores_of(config, number))], None
            changed = partial(host_changed, servable, model)
            loop.call_soon_threadsafe(model.attach, changed)
            return list(model.slots), model

        async def rehearsed(runners: Sequence[Runner]) -> None:
            await rehearse(NewInstances(servable, runners), folder)

        memory = cache_folder(self._options.cache) / "arrivals" / f"{quote(config.name, '')}.json"
        elastic = Elastic(
            servable, Scaler(elasticity, remembered(memory)), another, memory, rehearsed
        )
        servable.before_close = elastic.stop
        elastic.start()

    async def _launch_ensemble(self, config: ModelConfig, version: int) -> Ensemble:
        """An ensemble, after its steps' models are live."""
        dag = dag_of(config)
        await self._ensure(config, step_models(config))
        completed = complete_ensemble(config)
        parts = [self._part(dag.name, step.model, step.version) for step in dag.steps]
        signatures = [part.signature for part in parts]
        types = check_types(dag, completed.signature, signatures)
        inherit_labels(dag, completed.signature, signatures)
        note_optional(dag, signatures)
        raw = config.raw.get("ensemble_scheduling", {})
        return Ensemble(
            dag,
            completed.signature,
            str(version),
            types=types,
            config=completed.json,
            submit=self.submit,
            submit_stream=self.submit_stream,
            broken=partial(self._broken_step, dag, ()),
            statistics=self.statistics(config.name, str(version)),
            fits=fits_of(dag, completed.signature, signatures),
            many=frozenset(at for at, part in enumerate(parts) if part.decoupled),
            most_of_step=int(raw.get("max_inflight_requests", 0)),
            sequence_idle_s=max(part.sequence_idle_s for part in parts),
            cache=self._ensemble_cache(config, dag, ()),
        )

    async def _launch_pipeline(self, path: Path, config: ModelConfig, version: int) -> Ensemble:
        """A pipeline, after its models are live and its Python steps have started."""
        read = with_steps(self._options.repository, config.name, pipeline.read(path))
        await self._ensure(config, read.models)
        parts = {
            step.name: self._part(config.name, step.model, step.version)
            for step in read.steps
            if step.model
        }
        found = plan(config.name, read, {name: part.signature for name, part in parts.items()})
        hosts = await off_loop(start_functions, found, config, path.parent)
        own = {at: function_servable(found, at, each, str(version)) for at, each in hosts.items()}
        try:
            return self._pipeline(config, version, found, own, parts.values())
        except BaseException:
            await asyncio.gather(*(each.close() for each in own.values()))
            raise

    def _pipeline(
        self,
        config: ModelConfig,
        version: int,
        found: PipelinePlan,
        own: Mapping[int, Servable],
        parts: Collection[Live],
    ) -> Ensemble:
        """A pipeline whose steps have started; `own` are those without a model."""
        read = found.pipeline
        declared = replace(
            config,
            backend="ensemble",
            max_batch_size=0,
            inputs=tensor_configs(read.inputs),
            outputs=tensor_configs(found.outputs()),
        )
        completed = complete_ensemble(declared)
        return Ensemble(
            found.dag,
            completed.signature,
            str(version),
            types={name: kind.datatype for name, kind in found.types.items()},
            config=completed.json,
            submit=self.submit,
            submit_stream=self.submit_stream,
            broken=partial(self._broken_step, found.dag, own),
            statistics=self.statistics(config.name, str(version)),
            many=self._many(config, found),
            most_inflight=read.max_inflight_requests,
            own=own,
            each=found.each,
            lists=[name for name, kind in found.types.items() if kind.is_list],
            sequence_idle_s=max((part.sequence_idle_s for part in parts), default=0.0),
            cache=self._ensemble_cache(config, found.dag, own),
        )

    def _ensemble_cache(
        self, config: ModelConfig, dag: Dag, own: Collection[int]
    ) -> EnsembleCache | None:
        if not self._caches(config):
            return None
        standing = partial(standing_of, self.repository, dag, frozenset(own))
        return EnsembleCache(self._cache, dag.outputs, standing)

    def _many(self, config: ModelConfig, found: PipelinePlan) -> frozenset[int]:
        """The steps that answer any number of times; InvalidModel where one answer is needed."""
        steps = found.pipeline.steps
        many = frozenset(
            at
            for at, step in enumerate(steps)
            if step.model and self._part(config.name, step.model, step.version).decoupled
        )
        for at in many & found.each.keys():
            raise steps[at].source.error(
                f"model '{steps[at].model}' answers any number of times, so it cannot run for each "
                "item of a list",
                "inputs",
            )
        return many

    async def _ensure(self, config: ModelConfig, models: Sequence[str]) -> None:
        for name in models:
            try:
                await self._ensured(config.name, name)
            except TuiliError as error:
                raise InvalidModel(
                    f"ensemble '{config.name}' depends on '{name}', which is not loaded: {error}"
                ) from error

    async def _ensured(self, ensemble: str, name: str) -> None:
        """A model is live; one whose load waits for that of the ensemble is refused."""
        loads = self.repository.loads

        def wait(call: OpenCall) -> Awaitable[None]:
            call.enter(LoadOf(loads, name))
            return self.repository.ensure(name)

        load = loads.of(ensemble)
        if self.answerer is None or load is None:
            await self.repository.ensure(name)
        else:
            await self.answerer.open_calls.for_load(load, wait)

    async def _rehearsed(self, live: Started, folder: Path, load: Load | None = None) -> Started:
        """A version that has answered what was recorded; one that cannot is ended."""
        calls = self.answerer and self.answerer.open_calls
        asked = partial(calls.for_load, load) if calls and load else None
        try:
            await rehearse(live, folder, asked)
        except BaseException:
            await live.close()
            raise
        return live

    async def _shared_answers(self, folder: Path, config: ModelConfig) -> SharedAnswers | None:
        if self._shared is None or not self._caches(config):
            return None
        text = json.dumps(config.raw, sort_keys=True)
        content = await asyncio.to_thread(content_digest, folder, text)
        return SharedAnswers(self._shared, content)

    async def close(self) -> None:
        """Let go of what models share."""
        if self._shared is not None:
            await self._shared.close()

    def _caches(self, config: ModelConfig) -> bool:
        """Whether answers are kept: asked for, room for it, and each request stands alone."""
        wanted = bool(config.raw.get("response_cache", {}).get("enable", False))
        alone = not config.decoupled and "sequence_batching" not in config.raw
        return wanted and alone and self._options.response_cache_bytes > 0

    def _part(self, ensemble: str, model: str, version: str) -> Live:
        versions = self.repository.live.get(model, {})
        if version not in versions:
            there = ", ".join(sorted(each for each in versions if each)) or "none"
            raise InvalidModel(
                f"ensemble '{ensemble}' asks for version {version or '-1 (the newest)'} of model "
                f"'{model}'; those that are live: {there}"
            )
        return versions[version]

    def _broken_step(self, dag: Dag, own: Collection[int]) -> str:
        """Why a model of an ensemble cannot answer now, or ""; `own` are steps without a model."""
        for step in (step for at, step in enumerate(dag.steps) if at not in own):
            part = self.repository.live.get(step.model, {}).get(step.version)
            if part is None:
                return f"model '{step.model}', which it is made of, is not loaded"
            if part.broken:
                return f"model '{step.model}', which it is made of, is {part.broken}"
        return ""

    def all_statistics(self) -> list[Statistics]:
        """What is counted of all versions that there ever were."""
        return list(self._statistics.values())

    def statistics(self, model: str, version: str) -> Statistics:
        """What is counted of a version, over all of its loads."""
        key = (model, version)
        return self._statistics.setdefault(key, Statistics(*key))


def _begun(turn: Turn, load: Load | None, host: Host) -> None:
    """A host begins to load a model; on a thread."""
    turn.processes.append(host)
    if load is not None:
        load.processes.append(host)


def _pace_of(config: ModelConfig) -> Pace:
    return Pace(float(config.parameters.get("latency_target_ms", "0")) / 1e3)
