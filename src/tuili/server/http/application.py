"""From a request head to its operation: the one place where HTTP errors are made of exceptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.http.call import Call
from tuili.server.http.compression import unpacking_of
from tuili.server.http.connection import HttpConnection
from tuili.server.http.generate import Generation
from tuili.server.http.head import Head
from tuili.server.http.inference import Inference
from tuili.server.http.jobs import Jobs
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_json import LONG_BYTES
from tuili.server.http.operations import OPERATIONS
from tuili.server.http.predict import Predictions
from tuili.server.http.refusals import Refusals
from tuili.server.http.reply import Buffer, Reply, error_reply
from tuili.server.http.routes import Match, RouteTable, WrongMethod
from tuili.server.unpackers import Unpackers
from tuili.server.webhooks import Webhooks

_LOG: Final = logging.getLogger("tuili.server.http")
_Handler = Callable[[HttpConnection, Head, Match, Buffer], None]


class Application:
    """Answers every route of the protocol from a data plane."""

    def __init__(
        self,
        dataplane: DataPlane,
        limits: HttpLimits,
        refusals: Refusals | None = None,
        webhooks: Webhooks | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._routes = RouteTable()
        self._refusals = refusals or Refusals()
        self._inference = Inference(dataplane, limits, self._refusals)
        self._generation = Generation(dataplane, limits, self._refusals)
        self._jobs = Jobs(dataplane, self._inference, self._refusals, webhooks or Webhooks(()))
        self._predictions = Predictions(dataplane, limits, self._refusals)
        # What reads a model's metadata before it asks the model: on demand it is loaded first.
        self._on_models: dict[str, _Handler] = {
            "infer": self._inference.infer,
            "job_submit": self._jobs.answer,
            "generate": self._generation.generate,
            "generate_stream": self._generation.generate,
            "predict": self._predictions.predict,
        }
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
                waiting = self._wait(connection, head, match, found)
                self._keep(self._later(connection, head, waiting))
                return
            body = found
        self._begin(connection, head, match, body)

    async def _wait(
        self, connection: HttpConnection, head: Head, match: Match, waiting: Awaitable[Buffer]
    ) -> None:
        body = await waiting
        connection.work = None
        if not connection.closed:
            self._begin(connection, head, match, body)

    def _begin(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        if match.operation == "infer" and head.json_length != 0:
            if len(body) < LONG_BYTES or not self._infer_long(connection, head, match, body):
                self._inference.infer(connection, head, match, body)
        elif match.operation in self._on_models:
            self._once_live(connection, head, match, body)
        elif self._jobs.handles(match.operation):
            self._jobs.answer(connection, head, match, body)
        else:
            self._operate(connection, head, match, body)

    def _infer_long(
        self, connection: HttpConnection, head: Head, match: Match, body: Buffer
    ) -> bool:
        """Answer a request with much JSON; false where it is not much."""
        found = self._inference.begin_long(connection, head, match, body)
        if found is None:
            return False

        async def infer() -> None:
            document = await found
            connection.work = None
            if not connection.closed:
                self._inference.infer_long(connection, head, match, body, document)

        connection.work = found
        self._keep(self._later(connection, head, infer()))
        return True

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
        handler = self._on_models[match.operation]
        begun = self._dataplane.when_live(
            match.model, partial(handler, connection, head, match, body)
        )
        if begun is not None:
            self._keep(self._later(connection, head, begun))

    def _operate(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        call = Call(self._dataplane, head, match, body, self._limits)
        result = OPERATIONS[match.operation](call)
        if head.method != "GET":
            result = self._dataplane.known(result)
        if isinstance(result, Reply):
            connection.reply(result)
            return
        self._keep(self._later(connection, head, result))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(
        self, connection: HttpConnection, head: Head, result: Awaitable[Reply | None]
    ) -> None:
        """Reply with what comes; None has seen to its reply itself."""
        try:
            reply = await result
            if reply is not None:
                connection.reply(reply)
        except TuiliError as error:
            connection.reply(self._refusals.reply(error))
        except Exception:  # noqa: BLE001 - as above
            self._own_bug(connection, head)

    def _own_bug(self, connection: HttpConnection, head: Head) -> None:
        _LOG.exception("%s %r failed", head.method, head.target)
        connection.reply(error_reply(500, "internal error; the server's log has the details"))
