"""Store: the journal and what servers tell each other, in a database that they share.

The journal only grows: entries are chained by hash, and the database refuses to change or delete
them. An entry is written if nothing happened to its model since the writer looked (`after`), and,
for decisions, while the writer is the leader (`epoch`): so of two operators one is told to look
again, and a leader that was deposed while it paused cannot act.

The lease needs no common clock: its holder raises `beat`; who sees the same beat for long
enough, on its own monotonic clock, may take over.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, cast

from tuili.errors import Conflict, Unavailable
from tuili.server.rollout.history import DAMAGED, Entry

_COLUMNS: Final = (
    "seq", "at", "server", "who", "model", "rollout", "event", "why", "numbers", "digest", "chain",
)  # fmt: skip
COLUMNS: Final = ", ".join(_COLUMNS)

_SQLITE_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS journal (
  seq INTEGER PRIMARY KEY, at REAL NOT NULL, server TEXT NOT NULL, who TEXT NOT NULL,
  model TEXT NOT NULL, rollout TEXT NOT NULL, event TEXT NOT NULL, why TEXT NOT NULL,
  numbers TEXT NOT NULL, digest TEXT NOT NULL, chain TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS journal_no_update BEFORE UPDATE ON journal
  BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
CREATE TRIGGER IF NOT EXISTS journal_no_delete BEFORE DELETE ON journal
  BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
CREATE TABLE IF NOT EXISTS lease (
  id INTEGER PRIMARY KEY CHECK (id = 1), holder TEXT NOT NULL, epoch INTEGER NOT NULL,
  beat INTEGER NOT NULL);
INSERT OR IGNORE INTO lease VALUES (1, '', 0, 0);
CREATE TABLE IF NOT EXISTS tallies (
  server TEXT NOT NULL, topic TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (server, topic));
"""


_MARKS: Final = ", ".join("?" * len(_COLUMNS))
_INSERT: Final = f"INSERT INTO journal ({COLUMNS}) VALUES ({_MARKS})"  # noqa: S608 - constants
_READ: Final = f"SELECT {COLUMNS} FROM journal WHERE seq > ? ORDER BY seq"  # noqa: S608


class Lease(NamedTuple):
    """Who leads, since which epoch, and its last sign of life."""

    holder: str
    epoch: int
    beat: int


class Store(Protocol):
    """What the conductor needs; every method blocks, and raises Unavailable when it cannot."""

    def append(self, entry: Entry, after: int, epoch: int | None = None) -> Entry:
        """Write an entry; Conflict when the model has moved on, or the leader is another."""
        ...

    def read(self, since: int) -> list[Entry]:
        """The entries after `since`, in order."""
        ...

    def lease(self) -> Lease:
        """The lease as it is."""
        ...

    def take_lease(self, server: str, seen: Lease) -> Lease | None:
        """Take or renew the lease if it is still as `seen`; None when somebody was quicker."""
        ...

    def put_tally(self, server: str, topic: str, body: dict[str, Any]) -> None:
        """Tell the others what this server saw."""
        ...

    def tallies(self, topic: str) -> dict[str, dict[str, Any]]:
        """What every server saw, by server."""
        ...

    def forget_tallies(self, server: str, but: Sequence[str]) -> None:
        """Drop this server's tallies on other topics."""
        ...

    def close(self) -> None:
        """Release the database."""
        ...


class SqliteStore:
    """A store in one SQLite file in WAL mode; one connection, used under a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            # A decision that was acted on is on the disk, also after a power cut.
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SQLITE_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise self._cannot("open", error) from error

    def append(self, entry: Entry, after: int, epoch: int | None = None) -> Entry:
        with self._transaction("write") as run:
            if epoch is not None:
                check_epoch(run("SELECT epoch FROM lease").fetchone()[0], epoch)
            last = run("SELECT max(seq) FROM journal WHERE model = ?", (entry.model,)).fetchone()
            check_after(entry, last[0] or 0, after)
            before = run("SELECT seq, chain FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
            seq, chain = before or (0, "")
            written = entry.chained(chain, seq + 1)
            run(_INSERT, to_row(written))
        return written

    def read(self, since: int) -> list[Entry]:
        with self._transaction("read", "DEFERRED") as run:
            return [from_row(row) for row in run(_READ, (since,)).fetchall()]

    def lease(self) -> Lease:
        with self._transaction("read", "DEFERRED") as run:
            return Lease(*run("SELECT holder, epoch, beat FROM lease").fetchone())

    def take_lease(self, server: str, seen: Lease) -> Lease | None:
        mine = next_lease(server, seen)
        with self._transaction("write") as run:
            done = run(
                "UPDATE lease SET holder = ?, epoch = ?, beat = ? "
                "WHERE holder = ? AND epoch = ? AND beat = ?",
                (*mine, *seen),
            )
            return mine if done.rowcount else None

    def put_tally(self, server: str, topic: str, body: dict[str, Any]) -> None:
        with self._transaction("write") as run:
            row = (server, topic, json.dumps(body))
            run("INSERT OR REPLACE INTO tallies VALUES (?, ?, ?)", row)

    def tallies(self, topic: str) -> dict[str, dict[str, Any]]:
        with self._transaction("read", "DEFERRED") as run:
            rows = run("SELECT server, body FROM tallies WHERE topic = ?", (topic,)).fetchall()
        return {server: json.loads(body) for server, body in rows}

    def forget_tallies(self, server: str, but: Sequence[str]) -> None:
        with self._transaction("write") as run:
            kept = "SELECT value FROM json_each(?)"
            query = f"DELETE FROM tallies WHERE server = ? AND topic NOT IN ({kept})"  # noqa: S608
            run(query, (server, json.dumps(list(but))))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self, what: str, mode: str = "IMMEDIATE") -> Generator[Any]:
        with self._lock:
            try:
                self._connection.execute(f"BEGIN {mode}")
                try:
                    yield self._connection.execute
                except BaseException:
                    if self._connection.in_transaction:  # a full disk has rolled back already
                        self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.rollback()
                raise self._cannot(what, error) from error

    def _cannot(self, what: str, error: Exception) -> Unavailable:
        return Unavailable(
            f"cannot {what} the journal {self._path}: {error}; nothing was decided. "
            "Is the disk full, or the folder read-only? --state names another place"
        )


def next_lease(server: str, seen: Lease) -> Lease:
    """The lease after `server` took or renewed it: a new holder starts a new epoch."""
    epoch = seen.epoch if seen.holder == server else seen.epoch + 1
    return Lease(server, epoch, seen.beat + 1)


def check_epoch(now: int, mine: int) -> None:
    """Refuse a decision of a leader that no longer is one."""
    if now != mine:
        raise Conflict(f"another server leads since epoch {now}; this decision was of {mine}")


def check_after(entry: Entry, last: int, after: int) -> None:
    """Refuse what was decided without knowing of a later entry."""
    if last > after:
        raise Conflict(
            f"model {entry.model!r} has moved on: entry {last} came after {after}, which "
            f"this {entry.event!r} was based on; look again (tuili history {entry.model})"
        )


def to_row(entry: Entry) -> tuple[Any, ...]:
    """An entry as the columns of the journal."""
    found = entry.json()
    found["numbers"] = json.dumps(found["numbers"])
    return tuple(found[name] for name in _COLUMNS)


def from_row(row: Sequence[Any]) -> Entry:
    """The entry in a row of the journal; one damaged entry does not hide those after it."""
    found = dict(zip(_COLUMNS, row, strict=True))
    found["numbers"] = _numbers(found["numbers"])
    return Entry(**found)


def _numbers(text: object) -> dict[str, Any]:
    try:
        numbers = json.loads(str(text))
    except ValueError as error:
        return {DAMAGED: f"its numbers are no JSON: {error}"}
    if not isinstance(numbers, dict):
        return {DAMAGED: f"its numbers are {text!r}, expected an object"}
    return cast(dict[str, Any], numbers)


def broken_link(entries: Sequence[Entry]) -> int | None:
    """The number of the first entry that does not follow from those before it; None: all do."""
    chain = ""
    for entry in entries:
        if entry.chained(chain, entry.seq).chain != entry.chain:
            return entry.seq
        chain = entry.chain
    return None
