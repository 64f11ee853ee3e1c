"""Webhooks: the answer of a job is posted to a URL that the operator allows, until it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

from tuili.errors import InvalidArgument, Unsupported
from tuili.server.posting import plain, post

_log = logging.getLogger("tuili.server")

# Seconds before each try: a receiver that restarts has two and a half minutes to come back.
DELAYS_S: Final = (0.0, 1.0, 5.0, 25.0, 125.0)
_TIMEOUT_S: Final = 10.0
# Receivers that do not answer hold no more than this.
_MOST_CONNECTIONS: Final = 64
# One of them holds up its own answers only.
_MOST_OF_ONE: Final = 8
_MOST_BYTES: Final = 256 << 20


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
        self._most_bytes = most_bytes
        self._bytes = 0
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

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Start to deliver; what fails in the end is logged."""
        if self._bytes + len(body) > self._most_bytes:
            _log.error(
                "webhook %s is not told: answers of %d bytes wait for their receivers, and %d more "
                "would be above the limit of %d",
                url, self._bytes, len(body), self._most_bytes,
            )  # fmt: skip
            return
        self._bytes += len(body)
        task = asyncio.get_running_loop().create_task(self._deliver(url, body, headers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for the deliveries under way."""
        await asyncio.gather(*self._tasks)

    async def _deliver(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        cause = "the server stopped before it was tried"
        name = urlsplit(url).netloc.lower()
        receiver = self._receivers.setdefault(name, asyncio.Semaphore(_MOST_OF_ONE))
        try:
            for delay in self._delays_s:
                await asyncio.sleep(delay)
                async with receiver, self._free:
                    cause = await post(url, body, headers, self._timeout_s)
                if not cause:
                    return
            _log.error("webhook %s was tried %d times: %s", url, len(self._delays_s), cause)
        except asyncio.CancelledError:
            _log.error("webhook %s is not told, as the server stops: %s", url, cause)
            raise
        finally:
            self._bytes -= len(body)


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
