"""The one object that transports talk to: requests in, answers out, and everything about models.

Everything here is called on the event loop. Requests are callback style (no coroutine, no task
per request): `submit` queues, the batcher answers later. What is not inference returns plain
JSON-shaped dictionaries with the field names of the protocol, so that HTTP dumps them and gRPC
fills its messages from them (`google.protobuf.json_format.ParseDict`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from tuili.errors import (
    InvalidArgument,
    Unavailable,
    Unsupported,
)
from tuili.server.beside import FrontEnds, after, told
from tuili.server.control.commands import Commands
from tuili.server.control.conductor import Conductor
from tuili.server.control.reconciler import Front
from tuili.server.control.split import Split
from tuili.server.control.variants import rollout_lines
from tuili.server.demand import Demand
from tuili.server.describing import (
    checked_version,
    model_metadata,
    server_metadata,
    statistics_of,
    write_metrics,
)
from tuili.server.execution.express import Buffer, Express
from tuili.server.execution.pending import ENDED, Reply, StreamReply, Ticket
from tuili.server.execution.unexpected import of_tree
from tuili.server.forwarding import Forwarding, patterns_of
from tuili.server.lending import Lending
from tuili.server.loading.launching import Launcher
from tuili.server.memory import asked
from tuili.server.memory.asked import Kind
from tuili.server.memory.shared_memory import Regions, require_data
from tuili.server.memory.standing import Standing
from tuili.server.model_calls import CallAnswerer
from tuili.server.options import FOLLOWS, ServerOptions
from tuili.server.protocol.messages import InferRequest, sequence_of
from tuili.server.readiness import Judged, Verdict, judged
from tuili.server.recording import Recorder
from tuili.server.remotes import Remotes
from tuili.server.repository import overrides
from tuili.server.repository.layout import check_whole_name, find_model
from tuili.server.repository.lifecycle import Repository
from tuili.server.repository.unserved import unserved
from tuili.server.room import room_of
from tuili.server.serving.ensemble import Ensemble
from tuili.server.serving.servable import Servable
from tuili.server.settings import LogSettings
from tuili.server.steps import Steps, at_once
from tuili.server.telemetry.access_log import AccessLog
from tuili.server.telemetry.custom import CustomMetrics
from tuili.server.telemetry.queue_metrics import QueueCounts, queue_lines
from tuili.server.tracing import config as tracing
from tuili.server.tracing.tracer import Tracer, Ways

Json = dict[str, Any]

Answer = TypeVar("Answer")
# The modes in which models are loaded one by one.
_AS_ASKED: Final = ("explicit", "demand")
_LOOKS: Final = 10


class DataPlane:
    """Inference, health, metadata, repository, statistics and settings of one server."""

    # Loads models when requests ask for them; None in all other modes.
    demand: Demand | None = None
    # The other processes that take requests; None when this is the only one.
    front_ends: FrontEnds | None = None

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._follows = options.model_control_mode in FOLLOWS
        self._regions = Regions(allowed=options.allow_client_shm)
        self.launcher = launcher = Launcher(options, self.submit, self.submit_stream)
        self.repository: Repository[Front] = Repository(
            options.repository, launcher.launch, options.settle_s if self._follows else 0.0
        )
        launcher.repository = self.repository
        self.repository.abandon = launcher.turns.abandon
        self.remotes = Remotes(options)
        self.conductor = Conductor(self.repository, options.repository, options.state)
        self.rollouts = Commands(self.conductor)
        if options.model_control_mode == "demand":
            self.demand = demand = Demand(self, options.memory_budget_bytes)
            self.submit, self.submit_stream = demand.submit, demand.submit_stream
            launcher.submit, launcher.submit_stream = demand.submit, demand.submit_stream
        self._conducting: asyncio.Task[None] | None = None
        self.room = room_of(options)
        self.custom_metrics = CustomMetrics()
        self.queues: list[QueueCounts] = []
        self.loads = self.repository.loads
        launcher.answerer = CallAnswerer(self, launcher.turns.lend)
        self._live = self.repository.live
        self._tracer = Tracer(self, tracing.read(options.trace_config))
        self.traces = self._tracer.traces
        self._tracer.on_change = self._traces_changed
        self._recorder: Recorder | None = None
        self._stand_in_the_way(options)
        self.access_log = AccessLog(options.access_log) if options.access_log else None
        self._logs = LogSettings()
        self._started = False
        self._draining = False

    def _stand_in_the_way(self, options: ServerOptions) -> None:
        """What looks at all requests, from the last to the first that does; the tracer is before.

        What other front ends send here whole, they ask `traces` about.
        """
        forwarding = patterns_of(
            options.http_header_forward_pattern, options.grpc_header_forward_pattern
        )
        if forwarding:
            Forwarding(self, forwarding)
            self.traces = lambda model: True
        if options.record:
            # What headers say, which may be secret, is not there yet; shared memory has been read.
            folder_of = partial(find_model, options.repository)
            recorder = Recorder(self, dict(options.record), folder_of, self._traces_changed)
            traces, self._recorder = self.traces, recorder
            self.traces = lambda model: recorder.records(model) or traces(model)
        if options.allow_client_shm:
            Lending(self, self._regions)

    # ---- life
    async def start(self) -> None:
        """Load the models that the control mode asks for; failures are told by `repository`."""
        self._tracer.arm()
        wanted = await self._wanted()
        await self.conductor.start()
        await self.repository.load_all(wanted)
        self._conducting = asyncio.create_task(self.conductor.run())
        self._started = True

    async def _wanted(self) -> list[str]:
        """The models to load at the start; remote ones are fetched."""
        named = list(self.options.load_models)
        if self.demand is not None:
            await self.demand.start()
        if self.options.model_control_mode not in _AS_ASKED or named == ["*"]:
            await self.remotes.refresh()
            if self._follows:
                await self._copies_done()
            return self.repository.find()
        for name in named:
            await self.remotes.fetch(name)
        return named

    async def _copies_done(self) -> None:
        """Wait a little for copies that may just have ended; the next look takes what is left."""
        for _ in range(_LOOKS):
            if await self.repository.settled(self.repository.find()):
                return
            await asyncio.sleep(self.options.settle_s / 5)

    async def poll(self) -> bool:
        """Follow what changed in the repositories; false when it is worth another look soon."""
        await self.remotes.refresh()
        return await self.repository.poll()

    def begin_drain(self) -> None:
        """Readiness turns false; requests are still answered."""
        self._draining = True

    async def close(self, timeout_s: float | None = None) -> bool:
        """Finish what is in flight (false: not in time), then release all models."""
        self._draining = True
        if self.demand is not None:
            self.demand.close()
        if self._conducting is not None:
            self._conducting.cancel()
        await self.conductor.close()
        finished = await self.repository.drain(timeout_s)
        if finished:
            await self.repository.close()
        else:
            self._give_up()
        await self.launcher.close()
        if self._recorder is not None:
            await self._recorder.close()
        self._regions.close()
        self._tracer.close()
        if self.access_log is not None:
            self.access_log.close()
        return finished

    def _give_up(self) -> None:
        """The time is over: what is being loaded and what runs is ended, the rest ends itself."""
        self.repository.abandon("")
        for versions in self._live.values():
            for host in {host for each in versions.values() for host in each.hosts}:
                if host.is_running:
                    host.abort()

    # ---- inference
    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """Queue a request; `reply` is called once, on the loop, with its response or error.

        `reply` may be called before `submit` returns (a refused request). It must not raise.
        """
        try:
            versions = self._live.get(request.model)
            servable = versions.get(request.version) if versions else None
            if servable is None or request.parameters or request.kept is not None:
                servable = self._answering(request)
            if servable.decoupled:
                raise Unsupported(
                    f"model '{request.model}' answers any number of times: ask for a stream, as "
                    "a single answer doesn't support models with decoupled transaction policy"
                )
            for tensor in request.inputs:
                if tensor.data is None:
                    require_data(tensor)
            return servable.submit(request, reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            reply(of_tree(error, "a request could not be taken"))
            return ENDED

    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: object,
        deadline: float | None = None,
        ident: str = "",
    ) -> Ticket | None:
        """Queue a request that differs from an earlier one in its bytes and id only.

        None when its words do not mean any more what they did. It is answered by `express.send`,
        or by `reply`, after this returns; raises what it is refused for.
        """
        versions = self._live.get(express.request.model)
        if versions is None or versions.get(express.request.version) is not express.servable:
            return None
        return express.servable.express(express, raw, reply, target, deadline, ident)

    def go_by(self, ways: Ways) -> None:
        """Let requests go these ways from now on, which lead here in the end."""
        self.submit, self.submit_stream = ways.submit, ways.submit_stream
        self.express = ways.express

    def express_servable(self, request: InferRequest) -> Servable | None:
        """The servable, if requests with the words of this one may go the express way."""
        if self.demand is not None:
            return None  # Every use of a model has to be noted, or it goes for others.
        front = self._live.get(request.model, {}).get(request.version)
        return front if isinstance(front, Servable) and front.plain else None

    def standing(self, request: InferRequest) -> Standing | None:
        """Where all tensors of requests with the words of this one lie in shared memory."""
        return self._regions.standing(request)

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As `submit` for models that answer 0..n times: `reply(answer, final)`.

        Models that answer once call it once with `final` true. A final call without an answer
        has None. An error that is not final is one answer of many.
        """
        try:
            servable = self._answering(request)
            if servable.decoupled:
                for tensor in request.inputs:
                    if tensor.data is None:
                        require_data(tensor)
                return servable.submit_stream(request, reply)
        except Exception as error:  # noqa: BLE001 - as in `submit`
            reply(of_tree(error, "a request could not be taken"), True)
            return ENDED
        return self.submit(request, lambda answer: reply(answer, True))

    # ---- health and metadata
    def server_live(self) -> bool:
        """Whether the process works at all."""
        return True

    def server_ready(self) -> bool:
        """Whether requests should be sent here: started, not draining, every wanted model ready."""
        if not self._started or self._draining:
            return False
        wanted = {} if self.demand is not None else self.repository.failures()
        return not (self.options.strict_readiness and (wanted or self._broken()))

    def server_verdict(self) -> Judged:
        """As `server_ready`, with why not; models that can tell are asked, too."""
        if not self.server_ready():
            reasons = sorted(self.not_ready_reasons().items())
            told = [f"model '{model}': {why}" if model else why for model, why in reasons]
            return Verdict(False, "; ".join(told))
        return judged(Verdict(True), self._fronts() if self.options.strict_readiness else ())

    def not_ready_reasons(self) -> dict[str, str]:
        """Why the server is not ready, by model ("" for the server itself)."""
        reasons = self._broken() | self.repository.failures()
        if self._draining:
            reasons[""] = "the server is shutting down"
        elif not self._started:
            reasons[""] = "models are still loading"
        return reasons

    def server_metadata(self) -> Json:
        """`{"name", "version", "extensions"}`."""
        lends = self._regions.allowed or self.options.compat == "triton"
        return server_metadata(self.options.server_id, lends=lends)

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether that model version answers; false for unknown ones.

        InvalidArgument for a version that is no number.
        """
        servable = self._live.get(model, {}).get(checked_version(version))
        if servable is None and self.demand is not None and model not in self._live:
            return self.demand.is_ready(model)
        return servable is not None and not servable.broken

    def model_verdict(self, model: str, version: str = "") -> Judged:
        """As `model_ready`, with why not; the model and what it is made of are asked, too."""
        if not self.model_ready(model, version):
            return Verdict(False, self.not_ready_reasons().get(model, ""))
        names = [model]
        for name in names:  # grows: parts have parts
            names += [part for part in self.parts_of(name) if part not in names]
        found = [(name, self._live.get(name, {}).get("")) for name in names[1:]]
        found.append((model, self._live.get(model, {}).get(version)))
        return judged(Verdict(True), [(name, each) for name, each in found if each is not None])

    def when_live(self, model: str, answer: Callable[[], Answer]) -> Answer | Awaitable[Answer]:
        """What `answer` says of a model, after its load where that is on demand."""
        return answer() if self.demand is None else self.demand.when_live(model, answer)

    def counted(self, answer: Callable[[], Answer]) -> Answer | Awaitable[Answer]:
        """What `answer` says, once all that other front ends counted is counted here."""
        return answer() if self.front_ends is None else after(self.front_ends.count(), answer)

    def known(self, result: Answer | Awaitable[Answer]) -> Answer | Awaitable[Answer]:
        """The result of a change, once all other front ends know of it."""
        return result if self.front_ends is None else told(result, self.front_ends)

    def model_metadata(self, model: str, version: str = "") -> Json:
        """`{"name", "versions", "platform", "inputs", "outputs"}` as KServe v2 has it."""
        servable = self._servable(model, version)
        versions = [version] if version else self._versions(model)
        return model_metadata(model, servable, versions)

    def model_config(self, model: str, version: str = "") -> Json:
        """The model's configuration as the JSON form of Triton's `ModelConfig`."""
        return self._servable(model, version).config

    def model_statistics(self, model: str = "", version: str = "") -> Json:
        """`{"model_stats": [...]}` of one model, one version or ("") all."""
        return {"model_stats": list(self.each_statistics(model, version))}

    def each_statistics(self, model: str = "", version: str = "") -> Iterator[Json]:
        """The entries of `model_stats`, made one by one: there may be thousands."""
        return (each.json() for each in statistics_of(self._live, model, version))

    def is_decoupled(self, model: str, version: str = "") -> bool:
        """Whether the model may answer a request any number of times."""
        return self._servable(model, version).decoupled

    # ---- repository
    def repository_index(self, ready_only: bool = False) -> list[Json]:
        """`[{"name", "version", "state", "reason"}]`; a model never loaded has only its name."""
        broken = self._broken()
        entries = self.repository.index(ready_only)
        for entry in entries:
            if entry.get("state") == "READY" and entry["name"] in broken:
                servable = self._live.get(entry["name"], {}).get(entry["version"])
                if servable is not None and servable.broken:
                    entry |= {"state": "UNAVAILABLE", "reason": servable.broken}
        return [each for each in entries if not ready_only or each["state"] == "READY"]

    async def repository_load(self, model: str, parameters: Json | None = None) -> None:
        """Load or reload a model; `parameters` may hold `config` (JSON text) and `file:` overrides.

        Files are base64 text (HTTP) or bytes (gRPC).
        """
        self._require_explicit()
        check_whole_name(self.options.repository, model)
        given = overrides.parse(model, parameters or {})
        try:
            await self.remotes.fetch(model)
            if self.demand is not None and not parameters and model not in self._live:
                await self.demand.ensure(model)
            else:
                await self.repository.load(model, given)
        finally:
            await asyncio.to_thread(given.discard)

    async def repository_unload(self, model: str, unload_dependents: bool = False) -> None:
        """Stop a model: it refuses new requests, finishes those in flight, then goes.

        With `unload_dependents` the models that it is made of go too, but for those that another
        live ensemble still needs.
        """
        self._require_explicit()
        parts = self.parts_of(model) if unload_dependents else []
        await self.repository.unload(model)
        needed = {part for name in self._live for part in self.parts_of(name)}
        for part in parts:
            if part not in needed:
                await self.repository.unload(part)

    async def repository_dismiss(self, model: str) -> None:
        """As `repository_unload`, for a model that asks: nobody waits for what is in flight.

        Among that may be the request of which it asks, whose end would wait for this.
        """
        self._require_explicit()
        await self.repository.dismiss(model)

    def parts_of(self, model: str) -> list[str]:
        """The models that a live ensemble is made of; none for other models."""
        live = self._live.get(model, {}).values()
        steps = [
            step.model for each in live if isinstance(each, Ensemble) for step in each.dag.steps
        ]
        return list(dict.fromkeys(steps))

    # ---- settings: trace and log
    def trace_settings(self, model: str = "") -> Json:
        """The trace settings of a model or ("") the server."""
        self._require_known(model)
        return self._tracer.of(model)

    def update_trace_settings(self, settings: Json, model: str = "") -> Json:
        """Merge settings (None or empty clears a key to the global one) and return the result."""
        self._require_known(model)
        found = self._tracer.update(settings, model)
        self._traces_changed()
        return found

    def _traces_changed(self) -> None:
        if self.front_ends is not None:
            self.front_ends.traces_changed()

    def log_settings(self) -> Json:
        """`log_file log_info log_warning log_error log_verbose_level log_format`."""
        return self._logs.get()

    def update_log_settings(self, settings: Json) -> Json:
        """Merge settings and return the result; `log_file` is Unsupported."""
        if self.front_ends is not None:
            self.front_ends.log_settings_changed(settings)
        return self._logs.update(settings)

    # ---- shared memory
    def shared_memory_status(self, kind: Kind, region: str = "") -> list[Json]:
        """`[{"name", "key", "offset", "byte_size"}]`; NotFound for an unknown region."""
        return asked.status(self._regions, kind, region)

    def shared_memory_register(self, kind: Kind, region: str, parameters: Json) -> None:
        """Map a client's region: `{"key", "offset", "byte_size"}`."""
        asked.register(self._regions, kind, region, parameters)

    def shared_memory_unregister(self, kind: Kind, region: str = "") -> None:
        """Forget one region or ("") all; unknown ones are no error."""
        asked.unregister(self._regions, kind, region)

    # ---- telemetry
    def metrics_text(self) -> str:
        """The Prometheus exposition of everything that is counted."""
        return b"".join(at_once(self.write_metrics())).decode()

    def write_metrics(self) -> Steps[list[bytes]]:
        """The same in parts, with turns for others."""
        return write_metrics(
            self._live,
            self.front_ends,
            [
                *self.custom_metrics.lines(),
                *self.room.lines(),
                *rollout_lines(self.conductor),
                *(self.demand.lines() if self.demand is not None else ()),
                *(self.front_ends.lines() if self.front_ends is not None else ()),
                *queue_lines(self.queues),
            ],
            ready=self.server_ready(),
        )

    # ---- steps
    def _answering(self, request: InferRequest) -> Front:
        """What answers a request: the live version, or where its sequence or its pipeline is."""
        model, version, kept = request.model, request.version, request.kept
        met = None if kept is None else kept.met(model, version)
        if met is not None:
            return met
        if sequence_of(request):
            live = partial(self._servable, model, version)
            found = self.repository.homes.answering(request, live)
        else:
            found = self._servable(model, version)
        if kept is not None:
            kept.meet(model, version, found)
        return found

    def _servable(self, model: str, version: str) -> Front:
        """The live version, or the error that says why there is none."""
        versions = self._live.get(model)
        if versions is not None and version in versions:
            return versions[version]
        if versions is not None and version and not version.isdecimal():
            labelled = str(self.rollouts.labels(model)["labels"].get(version, ""))
            if labelled and labelled in versions:
                return versions[labelled]
        checked_version(version)
        states = self.repository.states_of(model)
        raise unserved(model, version, states, starting=not self._started)

    def _versions(self, model: str) -> list[str]:
        return sorted((version for version in self._live[model] if version), key=int)

    def _broken(self) -> dict[str, str]:
        """Live models that cannot answer now, with the cause."""
        return {name: front.broken for name, front in self._fronts() if front.broken}

    def _fronts(self) -> Iterator[tuple[str, Front]]:
        """What clients may be answered by, with the names of the models."""
        for name, versions in self._live.items():
            # A candidate that cannot answer is the roll-out's concern, not the clients'.
            front = versions.get("")
            fronts = (front,) if isinstance(front, Split) else dict.fromkeys(versions.values())
            yield from ((name, each) for each in fronts)

    def _require_explicit(self) -> None:
        if self.options.model_control_mode not in _AS_ASKED:
            raise Unavailable("explicit model load / unload is not allowed if polling is enabled")

    def _require_known(self, model: str) -> None:
        if model and model not in self._live:
            raise InvalidArgument(f"Request for unknown model : {model}")
