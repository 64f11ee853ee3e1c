"""Journals: where jobs are written down. In memory nothing is; on disk a thread commits by groups.

What came within one tick of the loop, or while the thread was busy, shares one commit and its
fsync.
Callbacks are called on the loop with "" or with why it could not be written.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from tuili.server.jobs.changes import Change, Left
from tuili.server.jobs.database import Database

_log = logging.getLogger("tuili.server")
_AGAIN_S: Final = 5.0
Then = Callable[[str], None]


def _ignore(trouble: str) -> None:
    """Nobody waits for it."""


class Journal(Protocol):
    """What a front end needs to write down."""

    @property
    def lasts(self) -> bool:
        """Whether anything is left of it for the next server."""
        ...

    def write(self, change: Change, then: Then) -> None:
        """Write a change that only counts once it is written."""
        ...

    def note(self, change: Change, then: Then = _ignore) -> None:
        """Write what happened anyway; where that fails it is tried again and again."""
        ...

    def request(self, id_: str, then: Callable[[bytes], None]) -> None:
        """The body of the request of a job that was left; shorter if it cannot be read."""
        ...

    async def close(self) -> None:
        """Return once all is written."""
        ...


class Memory:
    """No journal: jobs end with their server."""

    lasts = False

    def write(self, change: Change, then: Then) -> None:
        then("")

    def note(self, change: Change, then: Then = _ignore) -> None:
        then("")

    def request(self, id_: str, then: Callable[[bytes], None]) -> None:
        raise AssertionError("no earlier server has left anything in memory")

    async def close(self) -> None:
        pass


@dataclass(slots=True)
class _Entry:
    change: Change
    then: Then
    must: bool  # whether it happened already, and has to be written in the end


_Batch = list[_Entry]
Work = _Batch | Callable[[], None] | None


class Disk:
    """A journal in a database, written by a thread of its own."""

    lasts = True

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self._database = database
        self._loop = loop
        self._gathered: _Batch = []
        self._work: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._owed: _Batch = []
        self._trouble = ""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, change: Change, then: Then) -> None:
        self._gather(_Entry(change, then, must=False))

    def note(self, change: Change, then: Then = _ignore) -> None:
        self._gather(_Entry(change, then, must=True))

    def request(self, id_: str, then: Callable[[bytes], None]) -> None:
        self._flush()  # what was to be written before is
        self._work.put(lambda: self._tell([partial(then, self._read(id_))]))

    async def close(self) -> None:
        if self._closed:
            return
        self._flush()
        self._closed = True
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        # What it told the loop last.
        await asyncio.sleep(0)

    def _gather(self, entry: _Entry) -> None:
        if self._closed:
            entry.then("the server stops")
            return
        self._gathered.append(entry)
        if len(self._gathered) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._gathered:
            self._work.put(self._gathered)
            self._gathered = []

    # ---- the thread
    def _run(self) -> None:
        while not self.work(self._taken()):
            if self._work.empty() and not self._trouble:
                with suppress(sqlite3.Error):
                    self._database.tidy()

    def work(self, works: Sequence[Work]) -> bool:
        """Do all this, what is to be written in one commit; whether the end was among it."""
        batches = [self._owed, *(work for work in works if isinstance(work, list))]
        entries = [entry for batch in batches for entry in batch]
        if entries:
            self._owed = self._commit(entries)
        for work in works:
            if work is None:
                self._end()
                return True
            if not isinstance(work, list):
                work()
        return False

    def _taken(self) -> list[Work]:
        """All there is to do, once there is something; nothing when it is time to try again."""
        works: list[Work] = []
        with suppress(queue.Empty):
            works.append(self._work.get(timeout=_AGAIN_S if self._owed else None))
            while True:
                works.append(self._work.get_nowait())
        return works

    def _commit(self, entries: _Batch) -> _Batch:
        """Write them; those that must be written and are not yet."""
        if not self._try(entries):
            causes = [""] * len(entries)
        else:
            # One that finds no room must not refuse the others.
            causes = [self._try([entry]) for entry in entries]
        self._mind(next(filter(None, causes), ""))
        self._tell([partial(each.then, why) for each, why in zip(entries, causes, strict=True)])
        owed = [each for each, why in zip(entries, causes, strict=True) if why and each.must]
        return [_Entry(each.change, _ignore, must=True) for each in owed]

    def _read(self, id_: str) -> bytes:
        try:
            return self._database.request(id_)
        except sqlite3.Error as error:
            _log.error("the request of job %s cannot be read: %s", id_, error)
            return b""

    def _try(self, entries: _Batch) -> str:
        try:
            self._database.apply([entry.change for entry in entries])
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            return str(error) or type(error).__name__
        return ""

    def _mind(self, trouble: str) -> None:
        if trouble and not self._trouble:
            _log.error("jobs cannot be written down: %s; it is tried again", trouble)
        elif self._trouble and not trouble:
            _log.info("jobs are written down again")
        self._trouble = trouble

    def _tell(self, calls: list[Callable[[], None]]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(_call, calls)

    def _end(self) -> None:
        try:
            self._database.close()
        except sqlite3.Error as error:
            _log.error("the journal of jobs was not closed well: %s", error)


def _call(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


async def open_journal(folder: Path, keep_s: float) -> tuple[Disk, list[Left]]:
    """The journal in a folder, and what an earlier server left there."""
    loop = asyncio.get_running_loop()

    def open_() -> tuple[Database, list[Left]]:
        database = Database(folder)
        try:
            return database, database.left(time.time(), keep_s)
        except BaseException:
            database.close(clean=False)
            raise

    database, lefts = await loop.run_in_executor(None, open_)
    journal = Disk(database, loop)
    journal.start()
    return journal, lefts
