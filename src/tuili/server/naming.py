"""Naming: the data plane of repositories with namespaces; clients may use plain names.

A plain name stands for the one model that is called so; it is looked up here, once, and everything
behind knows whole names only. Load and unload of a plain name are of all models called so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from tuili.errors import InvalidArgument, TuiliError
from tuili.server.control.commands import Commands
from tuili.server.control.conductor import Conductor
from tuili.server.dataplane import DataPlane
from tuili.server.execution.pending import Reply, StreamReply, Ticket
from tuili.server.options import ServerOptions
from tuili.server.protocol.messages import InferRequest, InferResponse
from tuili.server.readiness import Judged
from tuili.server.repository.layout import Namespaced, find_models
from tuili.server.repository.namespaces import ambiguous, whole_names

Json = dict[str, Any]
Answer = TypeVar("Answer")


def dataplane_of(options: ServerOptions) -> DataPlane:
    """The data plane that the options ask for."""
    spaces = isinstance(options.repository, Namespaced)
    return NamingDataPlane(options) if spaces else DataPlane(options)


class _Names:
    """Finds the whole name of what a client calls a model."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    def all(self, model: str) -> list[str]:
        """The whole names that it may mean: of what was ever loaded, or else of what there is."""
        repository = self._dataplane.repository
        live = whole_names(repository.live, model) if model else []
        return live or whole_names(find_models(self._dataplane.options.repository), model)

    def one(self, model: str) -> str:
        """The only one; `model` itself if there is none. InvalidArgument if there are several."""
        if not model or model in self._dataplane.repository.live:
            return model
        found = self.all(model)
        if len(found) > 1:
            raise InvalidArgument(ambiguous(model, found))
        return found[0] if found else model


class _NamingCommands(Commands):
    """The operators' commands by plain names."""

    def __init__(self, conductor: Conductor, names: _Names) -> None:
        super().__init__(conductor)
        self._names = names

    async def create(self, document: Json, who: str) -> Json:
        if isinstance(model := document.get("model"), str):
            document = {**document, "model": self._names.one(model)}
        return await super().create(document, who)

    async def rollback(self, model: str, to: int | None, who: str, why: str = "") -> Json:
        return await super().rollback(self._names.one(model), to, who, why)

    async def label(self, model: str, label: str, version: int | None, who: str) -> Json:
        return await super().label(self._names.one(model), label, version, who)

    def labels(self, model: str) -> Json:
        return super().labels(self._names.one(model))

    async def history(self, model: str = "", since: int = 0) -> Json:
        return await super().history(self._names.one(model), since)

    def feedback(self, model: str, document: Json) -> Json:
        return super().feedback(self._names.one(model), document)


class NamingDataPlane(DataPlane):
    """A data plane that takes plain names as well as whole ones."""

    def __init__(self, options: ServerOptions) -> None:
        self._names = _Names(self)
        super().__init__(options)
        self.rollouts = _NamingCommands(self.conductor, self._names)
        self._submit_named, self._stream_named = self.submit, self.submit_stream
        self.submit, self.submit_stream = self._submit_plain, self._stream_plain

    def _submit_plain(self, request: InferRequest, reply: Reply) -> Ticket:
        asked = request.model
        try:
            request.model = self._names.one(asked)
        except TuiliError as error:
            reply(error)
            return _Nothing()

        def answered(answer: InferResponse | TuiliError) -> None:
            reply(_called(answer, asked))

        return self._submit_named(request, reply if request.model == asked else answered)

    def _stream_plain(self, request: InferRequest, reply: StreamReply) -> Ticket:
        asked = request.model
        try:
            request.model = self._names.one(asked)
        except TuiliError as error:
            reply(error, True)
            return _Nothing()
        return self._stream_named(
            request, lambda answer, final: reply(answer and _called(answer, asked), final)
        )

    def model_ready(self, model: str, version: str = "") -> bool:
        return super().model_ready(self._names.one(model), version)

    def model_verdict(self, model: str, version: str = "") -> Judged:
        return super().model_verdict(self._names.one(model), version)

    def when_live(self, model: str, answer: Callable[[], Answer]) -> Answer | Awaitable[Answer]:
        return super().when_live(self._names.one(model), answer)

    def model_metadata(self, model: str, version: str = "") -> Json:
        return super().model_metadata(self._names.one(model), version)

    def model_config(self, model: str, version: str = "") -> Json:
        return super().model_config(self._names.one(model), version)

    def each_statistics(self, model: str = "", version: str = "") -> Iterator[Json]:
        return super().each_statistics(self._names.one(model), version)

    def is_decoupled(self, model: str, version: str = "") -> bool:
        return super().is_decoupled(self._names.one(model), version)

    async def repository_load(self, model: str, parameters: Json | None = None) -> None:
        names = whole_names(find_models(self.options.repository), model) or [model]
        if len(names) > 1 and parameters:
            raise InvalidArgument(ambiguous(model, names))
        for name in names:
            await super().repository_load(name, parameters)

    async def repository_unload(self, model: str, unload_dependents: bool = False) -> None:
        for name in self._names.all(model) or [model]:
            await super().repository_unload(name, unload_dependents)

    async def repository_dismiss(self, model: str) -> None:
        for name in self._names.all(model) or [model]:
            await super().repository_dismiss(name)

    def trace_settings(self, model: str = "") -> Json:
        return super().trace_settings(self._names.one(model))

    def update_trace_settings(self, settings: Json, model: str = "") -> Json:
        return super().update_trace_settings(settings, self._names.one(model))


class _Nothing:
    """The ticket of a request that was answered at once."""

    def cancel(self) -> None:
        """Nothing is left to cancel."""


def _called(answer: Any, asked: str) -> Any:
    """An answer that calls the model as the client did."""
    if isinstance(answer, InferResponse):
        answer.model = asked
    return answer
