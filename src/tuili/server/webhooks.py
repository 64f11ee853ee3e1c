"""Webhooks: the answer of a job is posted to a URL that the operator allows, until it is taken."""

from __future__ import annotations

import asyncio
import http.client
import logging
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO, Final
from urllib.parse import urlsplit

from tuili.errors import InvalidArgument, Unsupported

_log = logging.getLogger("tuili.server")

# Seconds before each try: a receiver that restarts has two and a half minutes to come back.
DELAYS_S: Final = (0.0, 1.0, 5.0, 25.0, 125.0)
_TIMEOUT_S: Final = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would lead to an address that nobody has allowed."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> None:  # fmt: skip
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirects)


class Webhooks:
    """Posts results; at least once, to URLs that start with one of `allowed`."""

    def __init__(self, allowed: Sequence[str], delays_s: Sequence[float] = DELAYS_S) -> None:
        self._allowed = tuple(allowed)
        self._delays_s = delays_s
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, url: str) -> str:
        """The URL if it may be posted to."""
        if not self._allowed:
            raise Unsupported("webhooks are off; the server's --allow-webhook URL switches them on")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise InvalidArgument(f"webhook {url!r} is no http or https URL")
        if not any(_below(url, prefix) for prefix in self._allowed):
            raise InvalidArgument(
                f"webhook {url!r} starts with none of the allowed {list(self._allowed)}"
            )
        return url

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Start to deliver; what fails in the end is logged."""
        task = asyncio.get_running_loop().create_task(self._deliver(url, body, headers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for the deliveries under way."""
        await asyncio.gather(*self._tasks)

    async def _deliver(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        cause = ""
        for delay in self._delays_s:
            await asyncio.sleep(delay)
            cause = await asyncio.to_thread(_post, url, body, headers)
            if not cause:
                return
        _log.error("webhook %s was tried %d times: %s", url, len(self._delays_s), cause)


def _below(url: str, prefix: str) -> bool:
    """Whether `url` is `prefix` or something below it, and not a longer host or port."""
    return url == prefix or url.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """One try; what hindered it, or ""."""
    # `check` has seen the scheme.
    request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S):
            return ""
    except (OSError, http.client.HTTPException) as error:
        return str(error)
