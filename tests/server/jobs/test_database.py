"""The database of jobs: what is there after a crash, and what is refused at the start."""

import os
import sqlite3

import pytest

from tuili.errors import InvalidArgument, Unavailable
from tuili.server.jobs.changes import (
    Accepted,
    Answer,
    Asked,
    Begun,
    Cancelled,
    Finished,
    Forgotten,
    Told,
)
from tuili.server.jobs.database import FILE, Database

KEEP_S = 600.0
ANSWER = Answer(200, "application/json", (("X", "é"),), [b"ab", memoryview(b"c")])


def accepted(id_, body=b"body", key="", url=""):
    return Accepted(id_, key, 0.0, Asked("m", "2", 7, url), body)


def finished(id_, owed=False, at=10.0):
    return Finished(id_, "done", at, "", ANSWER, owed)


def crash(database):
    """As a process that is killed: nothing is told, the lock goes."""
    database._connection.close()
    os.close(database._claim)


def after_crash(database, folder, now=20.0):
    crash(database)
    again = Database(folder)
    lefts = again.left(now, KEEP_S)
    return again, lefts


def test_what_was_written_is_there_after_a_crash(tmp_path):
    body = os.urandom((2 << 20) + 5)
    database = Database(tmp_path)
    database.apply([accepted("a", body, "key", "http://hook"), accepted("b"), finished("b")])
    again, (a, b) = after_crash(database, tmp_path)
    assert (a.state, a.key, a.asked) == ("queued", "key", Asked("m", "2", 7, "http://hook"))
    assert (a.starts, a.request_bytes, again.request("a")) == (1, len(body), body)
    assert (b.state, b.finished) == ("done", 10.0)
    assert b.answer == Answer(200, ANSWER.content_type, ANSWER.headers, [b"abc"])
    again.close()


def test_a_clean_end_is_no_failed_start(tmp_path):
    database = Database(tmp_path)
    database.apply([accepted("a"), Begun("a")])
    again, (a,) = after_crash(database, tmp_path)
    assert a.starts == 2
    again.close()
    last = Database(tmp_path)
    assert last.left(20.0, KEEP_S)[0].starts == 0
    last.close()


@pytest.mark.parametrize(
    ("changes", "now", "state"),
    [
        ([Cancelled("a", 5.0)], 20.0, "cancelled"),
        ([Cancelled("a", 5.0), finished("a", owed=True)], 20.0, "cancelled"),
        ([finished("a", owed=True), Cancelled("a", 12.0)], 20.0, "cancelled"),
        ([finished("a"), Forgotten("a")], 20.0, None),
        ([finished("a")], 609.0, "done"),
        ([finished("a")], 610.0, None),
        ([finished("a", owed=True)], 610.0, "gone"),
        ([finished("a", owed=True), Forgotten("a")], 20.0, "gone"),
        ([finished("a", owed=True), Forgotten("a"), Told("a")], 20.0, None),
        ([finished("a", owed=True), Told("a")], 20.0, "done"),
        ([finished("a", owed=True)], 86_410.0, None),
        ([Forgotten("a"), finished("a", owed=True)], 20.0, None),
    ],
)
def test_how_jobs_end(tmp_path, changes, now, state):
    database = Database(tmp_path)
    database.apply([accepted("a")])
    for change in changes:
        database.apply([change])
    again, lefts = after_crash(database, tmp_path, now)
    assert ["gone" if left.gone else left.state for left in lefts] == ([state] if state else [])
    (pieces,) = again._connection.execute("SELECT count(*) FROM pieces").fetchone()
    assert bool(pieces) == (state in ("done", "gone"))
    again.close()


def test_a_torn_last_write_costs_only_itself(tmp_path):
    database = Database(tmp_path)
    database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.apply([accepted("a")])
    wal = tmp_path / f"{FILE}-wal"
    whole = wal.stat().st_size
    database.apply([accepted("b")])
    data, log = (tmp_path / FILE).read_bytes(), wal.read_bytes()
    crash(database)
    for length in (len(log) - 1, (whole + len(log)) // 2, whole + 1):
        (tmp_path / FILE).write_bytes(data)
        wal.write_bytes(log[:length])
        again = Database(tmp_path)
        assert [left.id for left in again.left(0.0, KEEP_S)] == ["a"]
        crash(again)
    (tmp_path / FILE).write_bytes(data)
    wal.write_bytes(log)
    again = Database(tmp_path)
    assert [left.id for left in again.left(0.0, KEEP_S)] == ["a", "b"]
    again.close()


def test_two_servers_do_not_share_a_folder(tmp_path):
    database = Database(tmp_path)
    with pytest.raises(Unavailable, match=f"in use by another server .process {os.getpid()}.*own"):
        Database(tmp_path)
    database.close()
    Database(tmp_path).close()


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path):
    database = Database(tmp_path)
    database.apply([accepted("a")])
    database._connection.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(InvalidArgument, match="is of format 7, and this server reads format 1"):
        Database(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    connection.close()


def test_another_programs_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(InvalidArgument, match="another program's database"):
        Database(tmp_path)


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(InvalidArgument, match="is damaged, or no journal of jobs.*Move it away"):
        Database(tmp_path)


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="jobs cannot be kept in .*file/below"):
        Database(tmp_path / "file" / "below")


def test_what_finds_no_room_changes_nothing(tmp_path):
    database = Database(tmp_path, most_bytes=1 << 18)
    database.apply([accepted("a")])
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        database.apply([accepted("small"), accepted("b", bytes(1 << 19))])
    database.apply([finished("a")])
    again, lefts = after_crash(database, tmp_path)
    assert [(left.id, left.state) for left in lefts] == [("a", "done")]
    again.close()


def test_room_is_given_back(tmp_path):
    database = Database(tmp_path)
    database.apply([accepted("a", bytes(8 << 20))])
    database.apply([Cancelled("a", 0.0)])
    for _ in range(9):
        database.tidy()
    database.close()
    assert (tmp_path / FILE).stat().st_size < 5 << 20
