"""AccessLog: a line of JSON for every request, written in blocks by a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tuili.server.telemetry.appending import Losses, append

_FLUSH_S: Final = 0.5
_BLOCK: Final = 1000
# Lines that wait for a disk that does not take them: more than these are lost, and counted.
_MOST_WAITING: Final = 100_000
_encode: Final = msgspec.json.Encoder().encode


class Access(msgspec.Struct, omit_defaults=True, gc=False):
    """One request; `status` is that of its protocol, HTTP's 499 if the client went before."""

    time: str
    client: str
    protocol: str
    method: str
    path: str
    status: int
    ms: float
    bytes_in: int = 0
    bytes_out: int = 0
    model: str = ""


class AccessLog:
    """Where lines go: a file, which may be moved away at any time, or "-" for standard output."""

    def __init__(self, where: str) -> None:
        self._path = None if where == "-" else Path(where)
        self._thread = ThreadPoolExecutor(1, "access-log")
        self._lines: list[bytes] = []
        self._begun = self._done = 0  # lines that the thread was given, and that it is done with
        self._losses = Losses("access log", "lines")
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        client: str,
        protocol: str,
        what: tuple[str, str],
        status: int,
        began_ns: int,
        sizes: tuple[int, int],
        model: str = "",
    ) -> None:
        """Note a request that is over; `what` is its method and path, `sizes` those of bodies."""
        if self._begun - self._done > _MOST_WAITING:
            self._losses.lose(1, "the disk is too slow")
            return
        # The time of day may have been set since the server began; durations have another clock.
        took_ns = time.monotonic_ns() - began_ns
        began = (time.time_ns() - took_ns) / 1e9
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began))
        line = Access(
            f"{text}.{int(began % 1 * 1000):03d}Z", client, protocol, *what, status,
            round(took_ns / 1e6, 3), *sizes, model,
        )  # fmt: skip
        self._lines.append(_encode(line))
        if len(self._lines) >= _BLOCK:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Have what is here written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            self._begun += len(lines)
            self._thread.submit(self._write, lines)

    def close(self) -> None:
        """Wait until all is written."""
        self.flush()
        self._thread.shutdown()
        self._losses.tell()

    def _write(self, lines: list[bytes]) -> None:
        block = b"\n".join([*lines, b""])
        self._losses.put(partial(self._put, block), len(lines))
        self._done += len(lines)

    def _put(self, block: bytes) -> None:
        if self._path is None:
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        else:
            append(self._path, block)
