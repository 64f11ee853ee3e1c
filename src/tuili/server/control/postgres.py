"""PostgresStore: the store of servers that share no file system."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from tuili.errors import Unavailable
from tuili.server.control.store import (
    COLUMNS,
    Lease,
    check_after,
    check_epoch,
    from_row,
    next_lease,
    to_row,
)
from tuili.server.rollout.history import Entry

_SCHEMA: Final = """
CREATE SCHEMA IF NOT EXISTS tuili;
CREATE TABLE IF NOT EXISTS tuili.journal (
  seq BIGINT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, server TEXT NOT NULL, who TEXT NOT NULL,
  model TEXT NOT NULL, rollout TEXT NOT NULL, event TEXT NOT NULL, why TEXT NOT NULL,
  numbers TEXT NOT NULL, digest TEXT NOT NULL, chain TEXT NOT NULL);
CREATE OR REPLACE RULE journal_no_update AS ON UPDATE TO tuili.journal DO INSTEAD NOTHING;
CREATE OR REPLACE RULE journal_no_delete AS ON DELETE TO tuili.journal DO INSTEAD NOTHING;
CREATE TABLE IF NOT EXISTS tuili.lease (
  id INTEGER PRIMARY KEY CHECK (id = 1), holder TEXT NOT NULL, epoch BIGINT NOT NULL,
  beat BIGINT NOT NULL);
INSERT INTO tuili.lease VALUES (1, '', 0, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS tuili.tallies (
  server TEXT NOT NULL, topic TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (server, topic));
"""
_SCHEMA_LOCK: Final = (
    7_117_111  # two servers that start at once make the tables one after the other
)
_MARKS: Final = ", ".join(["%s"] * len(COLUMNS.split(", ")))
_INSERT: Final = f"INSERT INTO tuili.journal ({COLUMNS}) VALUES ({_MARKS})"  # noqa: S608 - constants
_READ: Final = f"SELECT {COLUMNS} FROM tuili.journal WHERE seq > %s ORDER BY seq"  # noqa: S608

Run = Callable[..., Any]


class PostgresStore:
    """A store in the schema `tuili` of a PostgreSQL database; connects again after a loss."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        with self._transaction() as run:
            run("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            run(_SCHEMA)

    def append(self, entry: Entry, after: int, epoch: int | None = None) -> Entry:
        with self._transaction() as run:
            # Numbers follow each other without gaps, in the order of commits: readers tail them.
            run("LOCK TABLE tuili.journal IN SHARE ROW EXCLUSIVE MODE")
            if epoch is not None:
                check_epoch(run("SELECT epoch FROM tuili.lease FOR SHARE").fetchone()[0], epoch)
            query = "SELECT max(seq) FROM tuili.journal WHERE model = %s"
            check_after(entry, run(query, (entry.model,)).fetchone()[0] or 0, after)
            query = "SELECT seq, chain FROM tuili.journal ORDER BY seq DESC LIMIT 1"
            seq, chain = run(query).fetchone() or (0, "")
            written = entry.chained(chain, seq + 1)
            row = to_row(written)
            run(_INSERT, row)
        return written

    def read(self, since: int) -> list[Entry]:
        with self._transaction() as run:
            return [from_row(row) for row in run(_READ, (since,)).fetchall()]

    def lease(self) -> Lease:
        with self._transaction() as run:
            return Lease(*run("SELECT holder, epoch, beat FROM tuili.lease").fetchone())

    def take_lease(self, server: str, seen: Lease) -> Lease | None:
        mine = next_lease(server, seen)
        with self._transaction() as run:
            done = run(
                "UPDATE tuili.lease SET holder = %s, epoch = %s, beat = %s "
                "WHERE holder = %s AND epoch = %s AND beat = %s",
                (*mine, *seen),
            )
            return mine if done.rowcount else None

    def put_tally(self, server: str, topic: str, body: dict[str, Any]) -> None:
        with self._transaction() as run:
            run(
                "INSERT INTO tuili.tallies VALUES (%s, %s, %s) "
                "ON CONFLICT (server, topic) DO UPDATE SET body = EXCLUDED.body",
                (server, topic, json.dumps(body)),
            )

    def tallies(self, topic: str) -> dict[str, dict[str, Any]]:
        with self._transaction() as run:
            query = "SELECT server, body FROM tuili.tallies WHERE topic = %s"
            return {server: json.loads(body) for server, body in run(query, (topic,)).fetchall()}

    def forget_tallies(self, server: str, but: Sequence[str]) -> None:
        with self._transaction() as run:
            query = "DELETE FROM tuili.tallies WHERE server = %s AND NOT topic = ANY(%s)"
            run(query, (server, list(but)))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Generator[Run]:
        with self._lock:
            try:
                connection = self._connection
                if connection is None or connection.closed:
                    connection = psycopg.connect(self._address, connect_timeout=5, autocommit=True)
                    self._connection = connection
                with connection.transaction():
                    yield connection.execute
            except psycopg.Error as error:
                raise Unavailable(
                    f"cannot reach the journal in PostgreSQL: {error}; nothing was decided"
                ) from error
