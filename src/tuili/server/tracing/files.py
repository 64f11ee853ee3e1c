"""TraceFile: traces as JSON on disk, written on a thread of its own, as Triton lays them out.

With a log frequency every so many traces go to a file of their own, NAME.0, NAME.1 and so on; the
same when a count is reached. Otherwise all go to NAME, which is whole once the server has stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tuili.server.telemetry.appending import Losses, append

if TYPE_CHECKING:
    from tuili.server.tracing.trace import Trace

# Bytes of traces that wait for a disk that does not take them: what comes beyond is lost.
_MOST_WAITING: Final = 256 << 20
_encode: Final = msgspec.json.Encoder().encode


class TraceFile:
    """One trace file, and those with numbers beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "traces")
        self._losses = Losses(f"trace file {path}", "traces")
        self._index = 0
        self._open = False  # it lacks its last bracket
        self._begun = self._done = 0  # bytes that were handed to the thread, and that it wrote

    def write(self, traces: Sequence[Trace], *, numbered: bool) -> None:
        """Write traces to the file, or to the next with a number; the disk is not waited for."""
        size = sum(trace.size() for trace in traces)
        if self._begun - self._done > _MOST_WAITING:
            self._losses.lose(len(traces), "the disk is too slow")
        elif traces:
            self._begun += size
            self._thread.submit(self._write, list(traces), size, numbered)

    def close(self) -> None:
        """End the file, and wait until all is written."""
        self._thread.submit(self._end)
        self._thread.shutdown()
        self._losses.tell()

    def _write(self, traces: list[Trace], size: int, numbered: bool) -> None:
        write = self._numbered if numbered else self._append
        self._losses.put(partial(write, traces), len(traces))
        self._done += size

    def _numbered(self, traces: list[Trace]) -> None:
        path = self._path.with_name(f"{self._path.name}.{self._index}")
        append(path, b"[" + _joined(traces) + b"]", anew=True)
        self._index += 1

    def _append(self, traces: list[Trace]) -> None:
        append(self._path, (b"," if self._open else b"[") + _joined(traces), anew=not self._open)
        self._open = True

    def _end(self) -> None:
        if self._open:
            self._losses.put(partial(append, self._path, b"]"), 0)


def _joined(traces: list[Trace]) -> bytes:
    return b",".join(_encode(record) for trace in traces for record in trace.records())
