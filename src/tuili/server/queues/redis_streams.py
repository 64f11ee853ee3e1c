"""A Redis stream as a queue: a consumer group, answers in a second stream.

    redis://HOST:6379/0?stream=requests&group=tuili&answers=answers

Fields of a request: `model`, `body`, and if wanted `version`, `id` (the entry's own id otherwise)
and `json_length`. Fields of an answer: `id`, `status`, `body`, `json_length`. The answer, the mark
"answered" and the acknowledgement are one transaction, so an id is answered once, however often
it is delivered. Entries that a dead consumer held are claimed after `claim_s`. What is given up is
kept in a stream of its own, with `why`.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tuili.errors import Unsupported
from tuili.server.queues.addresses import option, options_of
from tuili.server.queues.messages import Answer, Request, length_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

_REMEMBER_S: Final = 24 * 3600
_CLAIM_EVERY_S: Final = 5.0
_MOST_PENDING: Final = 10_000


class RedisStream:
    """Requests in one stream, answers to another."""

    def __init__(self, url: str) -> None:
        options = options_of(url)
        self._url = url.partition("?")[0]
        self._stream = option(options, "stream", "requests")
        self._group = option(options, "group", "tuili")
        self._answers = option(options, "answers", f"{self._stream}:answers")
        self._dead = option(options, "dead", f"{self._stream}:dead")
        self.claim_s = float(option(options, "claim_s", "60"))
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._client: Redis | None = None
        self._claimed = 0.0
        self._cursor: bytes | str = "0-0"  # how far a look at what others hold has come
        self.name = f"redis stream {self._stream!r} at {urlsplit(self._url).hostname}"

    @property
    def _redis(self) -> Any:
        assert self._client is not None, "open() comes first"
        return self._client

    async def open(self) -> None:
        """Connect; make the stream and the group where they are not there yet."""
        try:
            import redis.asyncio
            from redis.exceptions import ResponseError
        except ImportError as error:
            raise Unsupported(f"{error}; queues need `pip install 'tuili[queues]'`") from error
        self._client = self._client or redis.asyncio.from_url(self._url)
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def fetch(self, most: int, timeout_s: float) -> list[tuple[object, Request]]:
        """New entries, or those that nobody answered for too long."""
        if time.monotonic() >= self._claimed + min(_CLAIM_EVERY_S, self.claim_s):
            self._claimed = time.monotonic()
            found = await self._claim(most)
            if self._cursor != b"0-0":
                self._claimed = 0.0  # a look sees some of them only: the next goes on at once
            if found:
                return found
        answer = await self._redis.xreadgroup(
            self._group, self._consumer, {self._stream: ">"}, most, int(timeout_s * 1000)
        )
        entries = [entry for _, entries in answer or () for entry in entries]
        return [(id_, _request(id_, fields, 1)) for id_, fields in entries]

    async def _claim(self, most: int) -> list[tuple[object, Request]]:
        claimed = await self._redis.xautoclaim(
            self._stream, self._group, self._consumer, int(self.claim_s * 1000), self._cursor, most
        )
        self._cursor = claimed[0]
        found: list[tuple[object, Request]] = []
        for id_, fields in claimed[1]:
            if id_ is None or fields is None:
                continue  # trimmed while it was pending, as Redis before 7 has it
            pending = await self._redis.xpending_range(self._stream, self._group, id_, id_, 1)
            tries = int(pending[0]["times_delivered"]) if pending else 1
            found.append((id_, _request(id_, fields, tries)))
        return found

    async def answer(self, handle: object, answer: Answer) -> None:
        """Write the answer and take the request out, in one transaction."""
        await self._end(handle, answer, {})

    async def bury(self, handle: object, request: Request, answer: Answer) -> None:
        """As `answer`; the request is kept in the stream of those that were given up."""
        kept: dict[str, str | int | bytes] = {
            "model": request.model,
            "version": request.version,
            "id": request.id,
            "body": request.body,
            "tries": request.tries,
            "why": answer.body,
        }
        if request.json_length >= 0:
            kept["json_length"] = request.json_length
        await self._end(handle, answer, kept)

    async def begun(self, handle: Any) -> int:
        """Count the runs of an entry."""
        key = f"{self._stream}:begun:{handle.decode()}"
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.incr(key)
            pipe.expire(key, _REMEMBER_S)
            count, _ = await pipe.execute()
        return int(count) - 1

    async def _end(
        self, handle: object, answer: Answer, kept: Mapping[str, str | int | bytes]
    ) -> None:
        from redis.exceptions import WatchError

        mark = f"{self._stream}:answered:{answer.id}"
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(mark)
            if await pipe.exists(mark):
                await pipe.unwatch()
                await self._redis.xack(self._stream, self._group, handle)
                return
            pipe.multi()
            pipe.set(mark, answer.status, ex=_REMEMBER_S)
            pipe.xadd(self._answers, _fields(answer))
            if kept:
                pipe.xadd(self._dead, dict(kept))
            pipe.xack(self._stream, self._group, handle)
            try:
                await pipe.execute()
            except WatchError:  # another consumer was quicker
                await self._redis.xack(self._stream, self._group, handle)

    async def extend(self, handles: Sequence[object]) -> None:
        """Keep entries from being claimed; those that others have claimed stay theirs."""
        ours = await self._redis.xpending_range(
            self._stream, self._group, "-", "+", _MOST_PENDING, self._consumer
        )
        held = {entry["message_id"] for entry in ours}.intersection(handles)
        if held:
            await self._redis.xclaim(
                self._stream, self._group, self._consumer, 0, sorted(held), justid=True
            )

    async def later(self, handle: object, delay_s: float) -> None:
        """Leave it pending: it is claimed again, by whoever is free, when `claim_s` have passed."""

    async def close(self) -> None:
        """Leave the group and disconnect."""
        if self._client is not None:
            await self._client.aclose()


def _request(id_: bytes, fields: Mapping[bytes, bytes], tries: int) -> Request:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    return Request(
        id=text(b"id") or id_.decode(),
        model=text(b"model"),
        version=text(b"version"),
        body=fields.get(b"body", b""),
        json_length=length_of(text(b"json_length")),
        tries=tries,
    )


def _fields(answer: Answer) -> dict[str, str | int | bytes]:
    fields: dict[str, str | int | bytes] = {
        "id": answer.id, "status": answer.status, "body": answer.body
    }  # fmt: skip
    if answer.json_length >= 0:
        fields["json_length"] = answer.json_length
    return fields
