"""The journal: it only grows, it is chained, and of two writers one is told to look again."""

import sqlite3
from pathlib import Path

import pytest

from tuili.errors import AlreadyExists, Unavailable
from tuili.server.control.leadership import TTL_S, Leadership
from tuili.server.control.store import SqliteStore, broken_link
from tuili.server.rollout.history import Entry


@pytest.fixture
def store(tmp_path):
    found = SqliteStore(tmp_path / "state" / "journal.db")
    yield found
    found.close()


def entry(event="label", model="m", **numbers):
    return Entry(model, event, "me", "because", numbers=numbers)


def test_what_was_written_is_read(store):
    first = store.append(entry(label="a", version=1), 0)
    second = store.append(entry(label="b", version=2), first.seq)
    assert store.read(0) == [first, second]
    assert store.read(first.seq) == [second]
    assert broken_link(store.read(0)) is None


def test_nothing_is_changed_or_deleted(store, tmp_path):
    store.append(entry(), 0)
    other = sqlite3.connect(tmp_path / "state" / "journal.db")
    for statement in ("DELETE FROM journal", "UPDATE journal SET who = 'you'"):
        with pytest.raises(sqlite3.IntegrityError, match="the journal only grows"):
            other.execute(statement)
    other.close()


def test_who_tampers_with_the_file_is_noticed(store, tmp_path):
    after = 0
    for version in range(3):
        after = store.append(entry(version=version), after).seq
    other = sqlite3.connect(tmp_path / "state" / "journal.db")
    other.execute("DROP TRIGGER journal_no_update")
    other.execute("UPDATE journal SET who = 'you' WHERE seq = 2")
    other.commit()
    other.close()
    assert broken_link(store.read(0)) == 2


def test_of_two_operators_at_once_one_is_told_to_look_again(store):
    seen = store.append(entry("created"), 0).seq
    store.append(entry("paused"), seen)
    with pytest.raises(AlreadyExists, match="model 'm' has moved on: entry 2 came after 1"):
        store.append(entry("aborted"), seen)
    store.append(entry("label", model="other"), seen)


def test_a_leader_that_slept_too_long_is_refused(store):
    first, second = Leadership("one"), Leadership("two")
    epoch = first.epoch(store, 0.0)
    assert epoch == 1
    assert second.epoch(store, 0.0) is None
    assert first.epoch(store, 2.0) == 1
    assert second.epoch(store, 3.0) is None
    assert second.epoch(store, 3.0 + TTL_S - 0.1) is None
    assert second.epoch(store, 3.0 + TTL_S) == 2
    with pytest.raises(AlreadyExists, match="another server leads since epoch 2"):
        store.append(entry("step"), 0, epoch)
    assert first.epoch(store, 10.0) is None
    assert (first.mine, second.mine) == (False, True)


def test_a_jump_of_the_wall_clock_deposes_nobody(store):
    """Only beats and each server's own monotonic clock count, whatever `at` says."""
    first, second = Leadership("one"), Leadership("two")
    for second_s in range(60):
        assert first.epoch(store, 1000.0 + second_s) == 1
        assert second.epoch(store, 5.0 + second_s) is None


def test_tallies_are_by_server_and_topic(store):
    store.put_tally("a", "r#1", {"n": 1})
    store.put_tally("a", "r#1", {"n": 2})
    store.put_tally("b", "r#1", {"n": 3})
    store.put_tally("a", "r#0", {"n": 9})
    store.forget_tallies("a", ["r#1"])
    assert store.tallies("r#1") == {"a": {"n": 2}, "b": {"n": 3}}
    assert store.tallies("r#0") == {}


def test_a_full_disk_is_told_and_nothing_is_decided(store):
    store.append(entry(), 0)
    store._connection.execute("PRAGMA max_page_count = 1")
    big = Entry("m", "label", "me", "x" * 1_000_000)
    with pytest.raises(Unavailable, match=r"cannot write the journal .*: database or disk is full"):
        store.append(big, 1)
    assert len(store.read(0)) == 1
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.append(big, 1).seq == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot open the journal .*--state names another place"):
        SqliteStore(Path(tmp_path / "file" / "journal.db"))
