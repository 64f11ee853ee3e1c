"""The database of jobs: one SQLite file, which one server at a time may use.

In WAL mode a commit is one append and one fsync, a torn end is found by its checksum, and pages
that are free are used again. Bodies lie in pieces, so that no statement copies much at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from tuili.errors import InvalidArgument, Unavailable, in_words
from tuili.server.jobs.changes import (
    Accepted,
    Answer,
    Asked,
    Begun,
    Bytes,
    Cancelled,
    Change,
    Finished,
    Forgotten,
    Left,
    Told,
)

FILE: Final = "jobs.sqlite"
# Far above what the bounds of a store let through; what is beyond is refused like a full disk.
MOST_BYTES: Final = 4 << 30
# Receivers are owed an answer for so long.
_OWED_S: Final = 86400.0
_FORMAT: Final = 1
_MARK: Final = 0x7475_696A  # "tuij", SQLite's application_id
_PIECE_BYTES: Final = 1 << 20
_WAL_BYTES: Final = 64 << 20
_SPARE_PAGES: Final = 1024
_PAGES_AT_ONCE: Final = 256

_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, created REAL NOT NULL,
  model TEXT NOT NULL, version TEXT NOT NULL, json_length INTEGER, url TEXT NOT NULL,
  request_bytes INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
  starts INTEGER NOT NULL DEFAULT 1, finished REAL NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '', status INTEGER, content_type TEXT, headers TEXT,
  owed INTEGER NOT NULL DEFAULT 0, gone INTEGER NOT NULL DEFAULT 0);
CREATE TABLE pieces (
  number INTEGER PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  of_answer INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX pieces_of_jobs ON pieces (job, of_answer);
PRAGMA application_id = {_MARK};
PRAGMA user_version = {_FORMAT};
COMMIT;
"""
_LEFT: Final = (
    "SELECT id, key, model, version, json_length, url, request_bytes, state, starts, finished, "
    "error, status, content_type, headers, owed, gone FROM jobs ORDER BY finished, number"
)
_FINISH: Final = (
    "UPDATE jobs SET state = ?, finished = ?, error = ?, status = ?, content_type = ?, "
    "headers = ?, owed = ? WHERE id = ? AND state = 'queued'"
)


class Database:
    """What is known of the jobs of one server; every method blocks."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        """Unavailable when another server has the folder, InvalidArgument when it is not ours."""
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._claim = _claimed(folder)
        try:
            self._connection = self._opened(most_bytes)
        except BaseException:
            os.close(self._claim)
            raise

    def _opened(self, most_bytes: int) -> sqlite3.Connection:
        with self._explained():
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection, most_bytes)
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def _explained(self) -> Generator[None]:
        """What is wrong with the file, in the words of who has to mend it."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self._path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise InvalidArgument(
                f"{self._path} is damaged, or no journal of jobs: {error}. Move it away to start "
                "without the jobs in it"
            ) from error

    def _prepare(self, connection: sqlite3.Connection, most_bytes: int) -> None:
        run = connection.execute
        # Before the first table; without shared memory, so that it works on network file systems.
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        # What was answered with 202 is on the disk, also after a power cut.
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        run(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        (page_bytes,) = run("PRAGMA page_size").fetchone()
        run(f"PRAGMA max_page_count = {most_bytes // page_bytes}")
        (mark,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if not (mark or version or tables):
            connection.executescript(_SCHEMA)
        elif mark != _MARK:
            raise InvalidArgument(f"{self._path} is another program's database, no journal of jobs")
        elif version != _FORMAT:
            raise InvalidArgument(
                f"{self._path} is of format {version}, and this server reads format {_FORMAT}: it "
                "was written by another version of tuili. Serve with that one until its jobs are "
                "done, or name another folder"
            )

    def left(self, now: float, keep_s: float) -> list[Left]:
        """What an earlier server left, the first to end first; what is over is deleted."""
        with self._lock, self._explained():
            run = self._connection.execute
            over = "state != 'queued' AND finished <= ?"
            run(f"UPDATE jobs SET gone = 1 WHERE {over}", (now - keep_s,))  # noqa: S608
            run("DELETE FROM jobs WHERE gone AND (NOT owed OR finished <= ?)", (now - _OWED_S,))
            return [self._left(row) for row in run(_LEFT).fetchall()]

    def _left(self, row: tuple[Any, ...]) -> Left:
        id_, key, model, version, json_length, url, request_bytes = row[:7]
        state, starts, finished, error, status, content_type, headers, owed, gone = row[7:]
        answer = None
        if status is not None:
            pairs = tuple((name, value) for name, value in json.loads(headers))
            answer = Answer(status, content_type, pairs, [self._body(id_, of_answer=True)])
        asked = Asked(model, version, json_length, url)
        return Left(
            id_, key, asked, request_bytes, state, starts, finished, error, answer,
            bool(owed), bool(gone),
        )  # fmt: skip

    def request(self, id_: str) -> bytes:
        """The body of a request that has no answer yet."""
        with self._lock:
            return self._body(id_, of_answer=False)

    def _body(self, id_: str, *, of_answer: bool) -> bytes:
        query = "SELECT data FROM pieces WHERE job = ? AND of_answer = ? ORDER BY number"
        return b"".join(data for (data,) in self._connection.execute(query, (id_, of_answer)))

    def apply(self, changes: Sequence[Change]) -> None:
        """All of these, or none and sqlite3.Error; on the disk when this returns."""
        with self._lock:
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    self._apply(change)
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled back already
                    run("ROLLBACK")
                raise

    def _apply(self, change: Change) -> None:
        run = self._connection.execute
        match change:
            case Accepted():
                self._accept(change)
            case Begun():
                run("UPDATE jobs SET starts = starts + 1 WHERE id = ?", (change.id,))
            case Finished():
                self._finish(change)
            case Told():
                run("UPDATE jobs SET owed = 0 WHERE id = ?", (change.id,))
                run("DELETE FROM jobs WHERE id = ? AND gone", (change.id,))
            case Cancelled():
                run(
                    "UPDATE jobs SET state = 'cancelled', finished = ?, error = '', status = NULL, "
                    "owed = 0 WHERE id = ?",
                    (change.at, change.id),
                )
                run("DELETE FROM pieces WHERE job = ?", (change.id,))
            case Forgotten():
                run("DELETE FROM jobs WHERE id = ? AND NOT owed", (change.id,))
                run("UPDATE jobs SET gone = 1 WHERE id = ?", (change.id,))

    def _accept(self, job: Accepted) -> None:
        asked = job.asked
        self._connection.execute(
            "INSERT INTO jobs (id, key, created, model, version, json_length, url, request_bytes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (job.id, job.key, job.at, asked.model, asked.version, asked.json_length, asked.url,
             len(job.body)),
        )  # fmt: skip
        self._store(job.id, [job.body], of_answer=False)

    def _finish(self, end: Finished) -> None:
        answer = end.answer
        about = (None, None, None)
        if answer is not None:
            about = (answer.status, answer.content_type, json.dumps(answer.headers))
        # Surrogates can come in with what a model says.
        error = end.error.encode("utf-8", "replace").decode()
        row = (end.state, end.at, error, *about, end.owed, end.id)
        if not self._connection.execute(_FINISH, row).rowcount:
            return  # it was cancelled, or is forgotten
        self._connection.execute("DELETE FROM pieces WHERE job = ?", (end.id,))
        if answer is not None:
            self._store(end.id, answer.parts, of_answer=True)

    def _store(self, id_: str, parts: Sequence[Bytes], *, of_answer: bool) -> None:
        insert = "INSERT INTO pieces (job, of_answer, data) VALUES (?, ?, ?)"
        for piece in _pieces(parts):
            self._connection.execute(insert, (id_, of_answer, piece))

    def tidy(self) -> None:
        """Give some of the room back that nothing is in; for when there is nothing else to do."""
        with self._lock:
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            if free > _SPARE_PAGES:
                # `execute` would give one page back, as the first step of the statement.
                self._connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")

    def close(self, *, clean: bool = True) -> None:
        """Let go; a clean end is no sign that a job ends servers."""
        with self._lock, closing(self._connection):
            try:
                if clean:
                    self._connection.execute("UPDATE jobs SET starts = 0 WHERE state = 'queued'")
            finally:
                os.close(self._claim)


def _pieces(parts: Sequence[Bytes]) -> Iterator[memoryview]:
    for part in parts:
        view = memoryview(part)
        for at in range(0, len(view), _PIECE_BYTES):
            yield view[at : at + _PIECE_BYTES]


def _claimed(folder: Path) -> int:
    """A lock on the folder, which ends with this process; Unavailable when another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        claim = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unavailable(f"jobs cannot be kept in {folder}: {in_words(error)}") from error
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(claim, 32).decode("ascii", "replace").strip()
        os.close(claim)
        raise Unavailable(
            f"{folder} is in use by another server (process {holder or 'unknown'}): each server "
            "needs a folder of its own for --jobs-dir"
        ) from error
    os.ftruncate(claim, 0)
    os.write(claim, b"%d\n" % os.getpid())
    return claim
