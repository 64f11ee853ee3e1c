"""One HTTP POST to a receiver that may be slow, wrong or hostile, of which only the status counts.

Written on asyncio's streams and not on urllib: a receiver that sends a byte now and then would hold
a thread of urllib's for ever, and a redirect leads to an address that nobody has allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
# What is left of an answer is read for so long, so that its sender need not see a reset.
_FAREWELL_S: Final = 0.5
_FAREWELL_BYTES: Final = 1 << 16


async def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> str:
    """Post once, within `timeout_s` in all; why it was not taken with a 2xx, or ""."""
    try:
        async with asyncio.timeout(timeout_s):
            status = await _exchange(url, body, headers)
    except TimeoutError:
        return f"it did not answer within {timeout_s:g} s"
    except ConnectionError as error:
        return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return "" if status.startswith("2") else f"it answered {status}"


async def _exchange(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """The answer's status and reason, as in "404 Not Found"."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or not plain(url):
        raise ValueError(f"{url!r} is no http address")
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or _PORTS[parts.scheme],
        ssl=_trust() if parts.scheme == "https" else None,
    )
    try:
        # Not drained: one who answers before it has read all is heard, too.
        writer.writelines((_head(parts, len(body), headers), body))
        status = await _status(reader)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_FAREWELL_S):
                await reader.readexactly(_FAREWELL_BYTES)
        return status
    finally:
        writer.transport.abort()


def plain(url: str) -> bool:
    """Whether a URL can stand in a request's first line as it is: visible ASCII only."""
    return all("!" <= char <= "~" for char in url)


def _head(parts: SplitResult, length: int, headers: Mapping[str, str]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    fields = {"Host": host, "Content-Length": str(length), "Connection": "close"} | dict(headers)
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


async def _status(reader: asyncio.StreamReader) -> str:
    """Of the first answer that is not an interim one (RFC 9110, section 15.2)."""
    while True:
        line = (await reader.readline()).decode("latin-1")
        if not line:
            raise ValueError("it closed the connection without an answer")
        version, _, status = line.strip().partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
            raise ValueError(f"it answered {line[:80]!r}, which is no HTTP")
        if not status.startswith("1"):
            return status
        while (await reader.readline()).strip():
            pass


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
