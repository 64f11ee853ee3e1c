"""Webhooks: the answer of a job is posted to a URL that the operator allows, until it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

from tuili.errors import InvalidArgument, Unsupported
from tuili.server.posting import plain, post
from tuili.server.scheduling.shares import Shares

_log = logging.getLogger("tuili.server")

# Seconds before each try: a receiver that restarts has two and a half minutes to come back.
DELAYS_S: Final = (0.0, 1.0, 5.0, 25.0, 125.0)
_TIMEOUT_S: Final = 10.0
# Receivers that do not answer hold no more than this.
_MOST_CONNECTIONS: Final = 64
# One of them holds up its own answers only.
_MOST_OF_ONE: Final = 8
_MOST_BYTES: Final = 256 << 20


def _nothing() -> None:
    """Nobody waits for the end of it."""


class Webhooks:
    """Posts results; at least once, to URLs that start with one of `allowed`."""

    def __init__(
        self,
        allowed: Sequence[str],
        delays_s: Sequence[float] = DELAYS_S,
        timeout_s: float = _TIMEOUT_S,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._allowed = tuple(allowed)
        self._delays_s = delays_s
        self._timeout_s = timeout_s
        # A receiver that does not answer keeps no room from the answers of others.
        self._waiting: Shares[_Delivery] = Shares(most_bytes)
        self._free = asyncio.Semaphore(_MOST_CONNECTIONS)
        # By host and port, as long as something waits for it.
        self._receivers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, url: str) -> str:
        """The URL if it may be posted to."""
        if not self._allowed:
            raise Unsupported("webhooks are off; the server's --allow-webhook URL switches them on")
        if not _well_formed(url):
            raise InvalidArgument(f"webhook {url!r} is no http or https URL")
        if not any(_below(url, prefix) for prefix in self._allowed):
            raise InvalidArgument(
                f"webhook {url!r} starts with none of the allowed {list(self._allowed)}"
            )
        return url

    def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        over: Callable[[], None] = _nothing,
    ) -> None:
        """Start to deliver; what fails in the end is logged.

        `over` is called when it is taken or given up, but not when the server stops before.
        """
        delivery = _Delivery(url, urlsplit(url).netloc.lower(), body, headers, over)
        waiting = self._waiting
        going = waiting.add(delivery.receiver, delivery, len(body))
        if going is None:
            delivery.given_up(
                f"answers of {waiting.size} bytes wait for all receivers, of which "
                f"{waiting.size_of(delivery.receiver)} for this one, and {len(body)} more would be "
                "above its share of the limit"
            )
            return
        for each in going:
            each.given_up("too many wait for its receiver, and others need the room")
        delivery.task = asyncio.get_running_loop().create_task(self._deliver(delivery))
        delivery.task.add_done_callback(lambda _: waiting.remove(delivery.receiver, delivery))
        self._tasks.add(delivery.task)
        delivery.task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for the deliveries under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, delivery: _Delivery) -> None:
        receiver = self._receivers.setdefault(delivery.receiver, asyncio.Semaphore(_MOST_OF_ONE))
        url, body, headers = delivery.url, delivery.body, delivery.headers
        try:
            for delay in self._delays_s:
                await asyncio.sleep(delay)
                async with receiver, self._free:
                    delivery.cause = await post(url, body, headers, self._timeout_s)
                if not delivery.cause:
                    delivery.end()
                    return
            _log.error(
                "webhook %s was tried %d times: %s", url, len(self._delays_s), delivery.cause
            )
            delivery.end()
        except asyncio.CancelledError:
            if not delivery.is_over:
                delivery.missed("the server stops")
            raise


@dataclass(slots=True, eq=False)
class _Delivery:
    """An answer that waits for its receiver."""

    url: str
    receiver: str
    body: bytes
    headers: Mapping[str, str]
    over: Callable[[], None]
    cause: str = "it was not tried"  # why it is not told yet
    task: asyncio.Task[None] | None = None
    is_over: bool = False

    def given_up(self, why: str) -> None:
        """It is not told."""
        if self.is_over:
            return
        self.missed(why)
        self.end()
        if self.task is not None:
            self.task.cancel()

    def missed(self, why: str) -> None:
        """This server does not tell it."""
        _log.error("webhook %s is not told, as %s: %s", self.url, why, self.cause)

    def end(self) -> None:
        """Nothing more is tried."""
        self.is_over = True
        self.over()


def _well_formed(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and "@" not in parts.netloc
        and plain(url)
        # A receiver might take these for steps upwards, out of what is allowed.
        and ".." not in unquote(unquote(parts.path)).replace("\\", "/").split("/")
    )


def _below(url: str, prefix: str) -> bool:
    """Whether `url` is `prefix` or something below it, and not a longer host or port."""
    return url == prefix or url.startswith(prefix if prefix.endswith("/") else prefix + "/")
