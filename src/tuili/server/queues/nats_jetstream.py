"""A JetStream stream as a queue: a durable pull consumer, answers to a subject.

    nats://HOST:4222?stream=requests&subject=infer.requests&group=tuili&answers=infer.answers

Headers of a request: `Tuili-Model`, and if wanted `Tuili-Version`, `Nats-Msg-Id` (the stream's
sequence number otherwise) and `Inference-Header-Content-Length`. An answer has the request's id as
`Tuili-Id` and as its own `Nats-Msg-Id`, by which JetStream drops a repeat, and `Tuili-Status`.
What is given up goes to a subject of its own, with its headers and `Tuili-Why`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tuili.errors import Unavailable, Unsupported
from tuili.server.queues.addresses import option, options_of
from tuili.server.queues.messages import Answer, Request, length_of

if TYPE_CHECKING:
    from nats.aio.client import Client

_log: Final = logging.getLogger("tuili.server")
_CONNECT_S: Final = 5.0
_ASK_EVERY_S: Final = 5.0
# NATS counts the headers, too.
_HEADERS_ROOM: Final = 512
_TOO_LARGE: Final = 413
_NO_BUCKET: Final = re.compile(r"[^A-Za-z0-9_-]")
_LENGTH = "Inference-Header-Content-Length"
# How long JetStream knows the ids of answers: longer than a request may be under way.
_REMEMBER_S = 24 * 3600


class JetStream:
    """Requests from one subject, answers to another."""

    def __init__(self, url: str) -> None:
        options = options_of(url)
        self._url = url.partition("?")[0]
        self._stream = option(options, "stream", "requests")
        self._subject = option(options, "subject", "infer.requests")
        self._group = option(options, "group", "tuili")
        self._answers = option(options, "answers", "infer.answers")
        self._dead = option(options, "dead", "infer.dead")
        self.claim_s = float(option(options, "claim_s", "60"))
        self._client: Client | None = None
        self._context: Any = None
        self._pull: Any = None
        self._asked = 0.0
        self.name = f"nats subject {self._subject!r} at {urlsplit(self._url).hostname}"

    async def open(self) -> None:
        """Connect; make the streams and the durable consumer where they are not there yet."""
        try:
            from nats.js.api import AckPolicy, ConsumerConfig
        except ImportError as error:
            raise Unsupported(f"{error}; queues need `pip install 'tuili[queues]'`") from error
        self._context = (await self._connected()).jetstream()
        await self._ensure_stream(self._stream, self._subject)
        await self._ensure_stream(f"{self._stream}-answers", self._answers)
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=self.claim_s)
        self._pull = await self._context.pull_subscribe(
            self._subject, durable=self._group, stream=self._stream, config=config
        )

    async def _connected(self) -> Client:
        """The client; Unavailable when nobody answers, which it would try for ever by itself."""
        from nats.aio.client import Client

        if self._client is not None and not self._client.is_closed:
            self._require_connection(self._client)
            return self._client
        client = Client()
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    self._url, connect_timeout=2, max_reconnect_attempts=-1, error_cb=_noted
                )
        except BaseException as error:
            cause = client.last_error or error
            with contextlib.suppress(Exception):
                await client.close()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"it cannot be reached: {cause}") from error
            raise
        self._client = client
        return client

    def _require_connection(self, client: Client) -> None:
        """The client connects again by itself, and says nothing meanwhile."""
        if not client.is_connected:
            raise Unavailable(f"the connection is lost: {client.last_error or 'it was closed'}")

    async def _ensure_stream(self, name: str, subject: str) -> None:
        from nats.js.errors import NotFoundError

        try:
            await self._context.find_stream_name_by_subject(subject)
        except NotFoundError:
            await self._context.add_stream(
                name=name, subjects=[subject], duplicate_window=_REMEMBER_S
            )

    async def fetch(self, most: int, timeout_s: float) -> list[tuple[object, Request]]:
        """The next messages, none when there are none within the time."""
        import nats.errors

        try:
            messages = await self._pull.fetch(most, timeout=timeout_s)
        except (TimeoutError, nats.errors.TimeoutError):
            if self._client is not None:
                self._require_connection(self._client)
            await self._require_consumer()
            return []
        return [(message, _request(message)) for message in messages]

    async def _require_consumer(self) -> None:
        """Raises where it is gone: asking it for messages only ever says that there are none."""
        now = time.monotonic()
        if now >= self._asked + _ASK_EVERY_S:
            self._asked = now
            await self._pull.consumer_info()

    async def answer(self, handle: Any, answer: Answer) -> None:
        """Publish the answer, which a repeat of it does not change, then acknowledge."""
        answer = self._fitting(answer)
        headers = {
            "Nats-Msg-Id": f"answer-{answer.id}",
            "Tuili-Id": answer.id,
            "Tuili-Status": str(answer.status),
        }
        if answer.json_length >= 0:
            headers[_LENGTH] = str(answer.json_length)
        await self._context.publish(self._answers, answer.body, headers=headers)
        await handle.ack()

    async def bury(self, handle: Any, request: Request, answer: Answer) -> None:
        """As `answer`; the message is kept in the stream of those that were given up."""
        await self._ensure_stream(f"{self._stream}-dead", self._dead)
        headers = dict(handle.headers or {})
        headers |= {"Nats-Msg-Id": f"dead-{request.id}", "Tuili-Id": request.id}
        headers["Tuili-Why"] = " ".join(answer.body.decode("utf-8", "replace").split())
        await self._context.publish(self._dead, request.body, headers=headers)
        await self.answer(handle, answer)

    async def begun(self, handle: Any) -> int:
        """Count the runs of a message, in a bucket beside the stream."""
        from nats.js.errors import BucketNotFoundError, KeyNotFoundError

        name = _NO_BUCKET.sub("-", f"{self._stream}-begun")
        try:
            bucket = await self._context.key_value(name)
        except BucketNotFoundError:
            bucket = await self._context.create_key_value(bucket=name, ttl=_REMEMBER_S)
        key = str(handle.metadata.sequence.stream)
        try:
            count = int((await bucket.get(key)).value)
        except KeyNotFoundError:
            count = 0
        await bucket.put(key, str(count + 1).encode())
        return count

    def _fitting(self, answer: Answer) -> Answer:
        """The answer, or that it is too large: it would be refused at every delivery."""
        client = self._client
        assert client is not None, "open() comes first"
        room = client.max_payload - _HEADERS_ROOM - 2 * len(answer.id.encode())
        if len(answer.body) <= room:
            return answer
        told = (
            f"the answer of {len(answer.body)} bytes is larger than the {room} that the NATS "
            "server's max_payload leaves; raise it there, or ask for less"
        )
        return Answer(answer.id, _TOO_LARGE, told.encode())

    async def extend(self, handles: Sequence[Any]) -> None:
        """Tell that they are being worked on."""
        for handle in handles:
            await handle.in_progress()

    async def later(self, handle: Any, delay_s: float) -> None:
        """Hand it back, to be delivered again after the delay."""
        await handle.nak(delay=delay_s)

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()


async def _noted(error: Exception) -> None:
    _log.info("nats: %s", error)


def _request(message: Any) -> Request:
    headers: dict[str, str] = message.headers or {}
    return Request(
        id=headers.get("Nats-Msg-Id") or str(message.metadata.sequence.stream),
        model=headers.get("Tuili-Model", ""),
        version=headers.get("Tuili-Version", ""),
        body=message.data,
        json_length=length_of(headers.get(_LENGTH, "")),
        tries=int(message.metadata.num_delivered or 1),
    )
