"""TraceFile: traces as JSON on disk, written on a thread of its own, as Triton lays them out.

With a log frequency every so many traces go to a file of their own, NAME.0, NAME.1 and so on; the
same when a count is reached. Otherwise all go to NAME, which is whole once the server has stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from tuili.server.tracing.trace import Trace

_log = logging.getLogger("tuili.server")
_encode: Final = msgspec.json.Encoder().encode


class TraceFile:
    """One trace file, and those with numbers beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "traces")
        self._index = 0
        self._begun = False

    def write(self, traces: Sequence[Trace], *, numbered: bool) -> None:
        """Write traces to the file, or to the next with a number; the disk is not waited for."""
        if traces:
            self._thread.submit(self._numbered if numbered else self._append, list(traces))

    def close(self) -> None:
        """End the file, and wait until all is written."""
        self._thread.submit(self._end)
        self._thread.shutdown()

    def _numbered(self, traces: list[Trace]) -> None:
        path = self._path.with_name(f"{self._path.name}.{self._index}")
        self._index += 1
        self._put(path, "wb", b"[" + _joined(traces) + b"]")

    def _append(self, traces: list[Trace]) -> None:
        mode, before = ("ab", b",") if self._begun else ("wb", b"[")
        self._begun = True
        self._put(self._path, mode, before + _joined(traces))

    def _end(self) -> None:
        if self._begun:
            self._put(self._path, "ab", b"]")

    def _put(self, path: Path, mode: str, data: bytes) -> None:
        try:
            with path.open(mode) as file:
                file.write(data)
        except OSError as error:
            _log.error("trace file %s: %s", path, error)


def _joined(traces: list[Trace]) -> bytes:
    return b",".join(_encode(record) for trace in traces for record in trace.records())
