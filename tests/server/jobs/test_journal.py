"""Group commit, and what becomes of changes that cannot be written."""

import asyncio
import sqlite3

from tests.server.jobs.test_database import accepted, finished
from tuili.server.jobs.database import Database
from tuili.server.jobs.journal import Disk, open_journal


class Noting:
    """A database that notes its commits, and is full for what is `too_large`."""

    def __init__(self):
        self.commits = []
        self.too_large = set()
        self.closed = False

    def apply(self, changes):
        if any(change.id in self.too_large for change in changes):
            raise sqlite3.OperationalError("database or disk is full")
        self.commits.append([change.id for change in changes])

    def request(self, id_):
        return b"body of " + id_.encode()

    def tidy(self):
        pass

    def close(self):
        self.closed = True


def journal():
    """A journal whose thread is the test."""
    database = Noting()
    found = Disk(database, asyncio.get_running_loop())
    found._tell = lambda calls: [call() for call in calls]
    return found, database


def drained(disk):
    works = []
    while not disk._work.empty():
        works.append(disk._work.get())
    return works


def test_what_comes_in_one_tick_is_one_commit():
    async def scenario():
        disk, database = journal()
        told = []
        for id_ in "abc":
            disk.write(accepted(id_), told.append)
        await asyncio.sleep(0)
        disk.work(drained(disk))
        assert (database.commits, told) == ([["a", "b", "c"]], ["", "", ""])

    asyncio.run(scenario())


def test_one_that_finds_no_room_does_not_refuse_the_others():
    async def scenario():
        disk, database = journal()
        database.too_large = {"b"}
        told = {}
        for id_ in "abc":
            disk.write(accepted(id_), lambda why, id_=id_: told.setdefault(id_, why))
        await asyncio.sleep(0)
        disk.work(drained(disk))
        assert database.commits == [["a"], ["c"]]
        assert told == {"a": "", "b": "database or disk is full", "c": ""}
        disk.work([])
        assert database.commits == [["a"], ["c"]]  # who was refused is not taken after all

    asyncio.run(scenario())


def test_what_happened_is_written_once_there_is_room(caplog):
    async def scenario():
        disk, database = journal()
        database.too_large = {"a"}
        told = []
        disk.note(finished("a"), told.append)
        await asyncio.sleep(0)
        disk.work(drained(disk))
        disk.work([])
        assert (told, database.commits) == (["database or disk is full"], [])
        database.too_large = set()
        disk.write(accepted("b"), told.append)
        await asyncio.sleep(0)
        disk.work(drained(disk))
        assert (told[1:], database.commits) == ([""], [["a", "b"]])

    asyncio.run(scenario())
    assert caplog.text.count("jobs cannot be written down: database or disk is full") == 1


def test_a_request_is_read_after_what_was_written_before():
    async def scenario():
        disk, database = journal()
        seen = []
        disk.note(finished("a"))
        disk.request("a", lambda body: seen.append((list(database.commits), body)))
        disk.work(drained(disk))
        assert seen == [([["a"]], b"body of a")]

    asyncio.run(scenario())


def test_the_thread_writes_all_before_the_end(tmp_path):
    async def scenario():
        disk, lefts = await open_journal(tmp_path, 600.0)
        assert lefts == []
        told = asyncio.get_running_loop().create_future()
        disk.write(accepted("a"), told.set_result)
        assert await told == ""
        disk.note(accepted("b"))
        await disk.close()
        late = []
        disk.write(accepted("c"), late.append)
        assert late == ["the server stops"]

    asyncio.run(scenario())
    database = Database(tmp_path)
    assert [left.id for left in database.left(0.0, 600.0)] == ["a", "b"]
    database.close()
