"""Recorder: keeps real requests in their model's folder, so that its next loads warm up with them.

Of each model that is named it keeps the first requests that differ in their shapes and were
answered. They are data of clients: nothing is kept of models that nobody named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from tuili.errors import TuiliError
from tuili.server.execution.express import Buffer, Express
from tuili.server.execution.pending import Reply, StreamReply, Ticket
from tuili.server.protocol.messages import InferRequest, InferResponse
from tuili.server.protocol.recorded import Shapes, dump, shapes_in, shapes_of
from tuili.server.repository import recordings
from tuili.server.tracing.tracer import PlainWays, Ways

_log = logging.getLogger("tuili.server")


class Recorder:
    """Stands in the way of all requests and keeps some."""

    def __init__(
        self,
        dataplane: Ways,
        counts: Mapping[str, int],
        folder_of: Callable[[str], Path | None],
        ended: Callable[[], None],
    ) -> None:
        """`counts`: how many requests to keep, by model; those kept earlier are among them.

        `ended` is called when no more are kept of a model.
        """
        self._before = PlainWays(dataplane)
        self._counts = dict(counts)
        self._folder_of = folder_of
        self._ended = ended
        self._kept: dict[str, set[Shapes]] = {}
        self._writing: set[asyncio.Future[None]] = set()
        dataplane.go_by(self)

    def records(self, model: str) -> bool:
        """Whether requests to a model may be kept."""
        return model in self._counts

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """As the data plane's."""
        data = self._worth_keeping(request)
        if data is None:
            return self._before.submit(request, reply)
        model, shapes = request.model, shapes_of(request)

        def answered(answer: InferResponse | TuiliError) -> None:
            if isinstance(answer, InferResponse):
                self._keep(model, shapes, data)
            reply(answer)

        return self._before.submit(request, answered)

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As the data plane's; any answer will do."""
        data = self._worth_keeping(request)
        if data is None:
            return self._before.submit_stream(request, reply)
        model, shapes = request.model, shapes_of(request)

        def answered(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if isinstance(answer, InferResponse):
                self._keep(model, shapes, data)
            reply(answer, final)

        return self._before.submit_stream(request, answered)

    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: object,
        deadline: float | None = None,
        ident: str = "",
    ) -> Ticket | None:
        """As the data plane's; None while requests to the model are kept."""
        if express.request.model in self._counts:
            return None
        return self._before.express(express, raw, reply, target, deadline, ident)

    def go_by(self, ways: Ways) -> None:
        """Nobody asks."""

    def _worth_keeping(self, request: InferRequest) -> bytes | None:
        """The bytes to keep of a request, taken before anyone uses its buffer again."""
        if request.model not in self._counts:
            return None
        if (request.parameters or {}).get("sequence_id"):
            return None  # It means nothing without those before it.
        if any(each.data is None for each in request.inputs):
            return None
        if shapes_of(request) in self._known(request.model):
            return None
        return dump(request)

    def _known(self, model: str) -> set[Shapes]:
        """The shapes that were kept, now or by an earlier server."""
        kept = self._kept.get(model)
        if kept is None:
            kept = self._kept[model] = set()
            folder = self._folder(model)
            try:
                there = recordings.read(folder) if folder is not None else {}
            except OSError:
                there = {}
            kept |= {shapes for data in there.values() if (shapes := shapes_in(data)) is not None}
            self._end_at_count(model)
        return kept

    def _keep(self, model: str, shapes: Shapes, data: bytes) -> None:
        folder = self._folder(model)
        if model not in self._counts or folder is None or shapes in self._kept[model]:
            return
        self._kept[model].add(shapes)
        writing = asyncio.ensure_future(asyncio.to_thread(recordings.write, folder, data))
        self._writing.add(writing)
        writing.add_done_callback(lambda done: self._written(model, folder, done))
        self._end_at_count(model)

    def _end_at_count(self, model: str) -> None:
        if len(self._kept[model]) >= self._counts[model]:
            _log.info("model %s: %d requests are recorded", model, len(self._kept[model]))
            del self._counts[model]
            self._ended()

    def _written(self, model: str, folder: Path, done: asyncio.Future[None]) -> None:
        self._writing.discard(done)
        error = None if done.cancelled() else done.exception()
        if error is not None and self._counts.pop(model, None) is not None:
            self._ended()
            _log.warning(
                "model %s: no more requests are recorded, as %s cannot be written: %s",
                model, folder / recordings.FOLDER, error,
            )  # fmt: skip

    def _folder(self, model: str) -> Path | None:
        try:
            return self._folder_of(model)
        except TuiliError:
            return None  # more than one, or no name at all: the data plane tells

    async def close(self) -> None:
        """Wait until what is kept is written."""
        await asyncio.gather(*self._writing, return_exceptions=True)
