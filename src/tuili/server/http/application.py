"""From a request head to its operation: the one place where HTTP errors are made of exceptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.http.call import Call
from tuili.server.http.compression import unpacking_of
from tuili.server.http.connection import HttpConnection
from tuili.server.http.generate import Generation
from tuili.server.http.head import Head
from tuili.server.http.inference import Begin, Inference
from tuili.server.http.jobs import Jobs
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_json import LONG_BYTES, parse_long
from tuili.server.http.long_values import forget
from tuili.server.http.operations import OPERATIONS
from tuili.server.http.predict import Predictions
from tuili.server.http.refusals import Refusals
from tuili.server.http.reply import Buffer, Reply, error_reply
from tuili.server.http.responder import Responder
from tuili.server.http.routes import Match, RouteTable, WrongMethod
from tuili.server.jobs.journal import Journal
from tuili.server.steps import Steps, at_once
from tuili.server.unpackers import Unpackers
from tuili.server.webhooks import Webhooks

_LOG: Final = logging.getLogger("tuili.server.http")
_Handler = Callable[[HttpConnection, Head, Match, Buffer], None]
_Reader = Callable[[Head, Match, Buffer], Steps[Begin]]
_Found = TypeVar("_Found")


class Application:
    """Answers every route of the protocol from a data plane."""

    def __init__(
        self,
        dataplane: DataPlane,
        limits: HttpLimits,
        refusals: Refusals | None = None,
        webhooks: Webhooks | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._routes = RouteTable()
        self._refusals = refusals or Refusals()
        self._inference = Inference(dataplane, limits, self._refusals)
        self._responder = responder = Responder(self._refusals, self._inference.slices)
        self._generation = Generation(dataplane, limits, responder)
        webhooks = webhooks or Webhooks(())
        self.jobs = Jobs(dataplane, self._inference, responder, webhooks, journal)
        self._predictions = Predictions(dataplane, limits, responder)
        # What reads a model's metadata before it asks the model: on demand it is loaded first.
        self._on_models: dict[str, tuple[_Handler, _Reader]] = {
            "infer": (self._infer, self._inference.begin),
            "job_submit": (self.jobs.answer, self.jobs.begin),
            "generate": (self._generation.generate, self._generation.begin),
            "generate_stream": (self._generation.generate, self._generation.begin),
            "predict": (self._predictions.predict, self._predictions.begin),
        }
        self._slices = self._inference.slices
        self._unpackers = Unpackers()
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, connection: HttpConnection, head: Head, body: Buffer) -> None:
        """Answer one request, now or later; never raises."""
        try:
            match = head.route
            if not isinstance(match, Match):
                match = self._find(head)
                if isinstance(match, Reply):
                    connection.reply(match)
                    return
            if self._limits.restrictions:
                self._limits.restrictions.check(match.operation, head.field)
            if head.content_encoding:
                self._unpack(connection, head, match, body)
            else:
                self._begin(connection, head, match, body)
        except TuiliError as error:
            connection.reply(self._refusals.reply(error))
        except Exception:  # noqa: BLE001 - a bug of ours must not end the connection
            self._own_bug(connection, head)

    def _unpack(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        """Begin a request whose body is packed, once it is not any more."""
        unpacking = unpacking_of(head.content_encoding, body, self._limits.max_json_bytes)
        if unpacking is not None:
            found = self._unpackers.unpack(unpacking, connection.claim, connection.loop)
            if isinstance(found, asyncio.Future):
                connection.work = found
                then = partial(self._begin, connection, head, match)
                self._keep(self._later(connection, head, _wait(connection, found, then)))
                return
            body = found
        self._begin(connection, head, match, body)

    def _begin(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        operation = match.operation
        if operation == "infer" and head.json_length != 0:
            if len(body) < LONG_BYTES or self._inference.json_length(head, body) < LONG_BYTES:
                self._infer(connection, head, match, body)
            else:
                self._read_long(self._inference.begin, connection, head, match, body)
        elif operation in self._on_models:
            self._once_live(connection, head, match, body)
        elif self.jobs.handles(operation):
            self.jobs.answer(connection, head, match, body)
        elif len(body) < LONG_BYTES:
            self._operate(head, match, body, None, connection)
        else:
            self._read_long(self._begin_operation, connection, head, match, body)

    def _infer(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        work = self._inference.infer(connection, head, match, body)
        if work is not None:
            self._take_turns(connection, head, work)

    def _read_long(
        self, read: _Reader, connection: HttpConnection, head: Head, match: Match, body: Buffer
    ) -> None:
        """Answer a request with much JSON, once that is read slice by slice."""
        self._take_turns(connection, head, read(head, match, body))

    def _take_turns(self, connection: HttpConnection, head: Head, work: Steps[Begin]) -> None:
        loop = connection.loop
        if loop is None:
            at_once(work)(connection)
            return
        found = connection.work = self._slices.run(work, loop)
        then = _wait(connection, found, lambda begin: begin(connection))
        self._keep(self._later(connection, head, then))

    def foresee(self, head: Head) -> Reply | None:
        """The refusal of a request whatever its body says; None where that is to be read."""
        found = self._find(head)
        if isinstance(found, Reply):
            return found
        try:
            self._limits.restrictions.check(found.operation, head.field)
        except TuiliError as error:
            return self._refusals.reply(error)
        return None

    def _find(self, head: Head) -> Match | Reply:
        """The match of a new head, or its refusal."""
        match = self._routes.find(head.method, head.path)
        if isinstance(match, Match):
            head.route = match
            return match
        if isinstance(match, WrongMethod):
            allow = ", ".join(match.allowed).encode()
            return error_reply(405, "Method Not Allowed", ((b"Allow", allow),))
        return error_reply(404, "Not Found")

    def _once_live(
        self, connection: HttpConnection, head: Head, match: Match, body: Buffer
    ) -> None:
        whole, by_slices = self._on_models[match.operation]
        handler = whole if len(body) < LONG_BYTES else partial(self._read_long, by_slices)
        begun = self._dataplane.when_live(
            match.model, partial(handler, connection, head, match, body)
        )
        if begun is not None:
            self._keep(self._later(connection, head, begun))

    def _begin_operation(self, head: Head, match: Match, body: Buffer) -> Steps[Begin]:
        try:
            document = yield from parse_long(body, self._limits)
        except TuiliError as error:
            document = error  # which the operation may know better
        if isinstance(document, dict):
            yield from forget(document)  # it is only told that there are long arrays
        return partial(self._operate, head, match, body, document)

    def _operate(
        self, head: Head, match: Match, body: Buffer, document: Any, connection: HttpConnection
    ) -> None:
        call = Call(self._dataplane, head, match, body, self._limits, document)
        result = OPERATIONS[match.operation](call)
        if head.method != "GET":
            result = self._dataplane.known(result)
        if not isinstance(result, Awaitable):
            self._send(connection, result)
            return
        self._keep(self._later(connection, head, result))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(
        self,
        connection: HttpConnection,
        head: Head,
        result: Awaitable[Reply | Steps[Reply] | None],
    ) -> None:
        """Reply with what comes; None has seen to its reply itself."""
        try:
            reply = await result
            if reply is not None:
                self._send(connection, reply)
        except TuiliError as error:
            connection.reply(self._refusals.reply(error))
        except Exception:  # noqa: BLE001 - as above
            self._own_bug(connection, head)

    def _send(self, connection: HttpConnection, reply: Reply | Steps[Reply]) -> None:
        if isinstance(reply, Reply):
            connection.reply(reply)
        else:
            self._responder.send(connection, reply)

    def _own_bug(self, connection: HttpConnection, head: Head) -> None:
        _LOG.exception("%s %r failed", head.method, head.target)
        connection.reply(error_reply(500, "internal error; the server's log has the details"))


async def _wait(
    connection: HttpConnection, promise: Awaitable[_Found], then: Callable[[_Found], None]
) -> None:
    """Go on with what was promised, unless the client has gone."""
    found = await promise
    connection.work = None
    if not connection.closed:
        then(found)
