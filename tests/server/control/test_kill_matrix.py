"""kill -9 at every write of a promotion: one pointer afterwards, and the roll-out goes on.

`make kill-matrix` runs all of it; the tests take a part.
"""

import os
import signal
import subprocess
import sys

import pytest

from tests.server.test_dataplane import IDENTITY
from tuili.server.control.opening import open_store
from tuili.server.control.store import broken_link
from tuili.server.rollout.history import World

EVENTS = ["created", "started", "loaded", "step", "promoting", "pointer"]
WHOLE = bool(os.environ.get("TUILI_KILL_MATRIX"))
CASES = [(moment, at) for moment in ("after", "during") for at in range(1, len(EVENTS) + 1)]
SLICE = [("during", 4), ("after", 5), ("during", 6)]


def repository(folder):
    for version in ("1", "2"):
        (folder / "m" / version).mkdir(parents=True)
    text = IDENTITY + "version_policy { specific { versions: 1 } }"
    (folder / "m" / "config.pbtxt").write_text(text)
    return folder


def server(folder, state, moment="after", kill_at=0, *more):
    command = [sys.executable, "-m", "tests.server.control.promotion", folder, state, moment]
    return subprocess.Popen(
        [*command, str(kill_at), *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def pointer_after(entries):
    world = World()
    for entry in entries:
        world.apply(entry)
    return world.model("m").pointer


@pytest.fixture
def fresh(state):
    """The address of a store in which nothing was ever decided."""
    if "://" in state:
        import psycopg

        with psycopg.connect(state, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS tuili CASCADE")
    return state


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "at"), CASES if WHOLE else SLICE)
def test_killed_at_any_write_the_server_comes_back_to_one_pointer(tmp_path, fresh, moment, at):
    folder = repository(tmp_path / "repository")
    killed = server(folder, fresh, moment, at)
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, errors
    store = open_store(fresh)
    entries = store.read(0)
    assert [entry.event for entry in entries] == EVENTS[: at if moment == "after" else at - 1]
    pointer = pointer_after(entries)

    again = server(folder, fresh)
    told, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert told.split() == [str(pointer or 1), "2"]
    entries = store.read(0)
    assert [entry.event for entry in entries] == EVENTS
    assert broken_link(entries) is None
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "at"), CASES if WHOLE else SLICE[1:2])
def test_a_leader_that_is_killed_hands_over_to_another_server(tmp_path, fresh, moment, at):
    if (moment, at) == ("during", 1):
        pytest.skip("then nobody knows of a roll-out")
    folder = repository(tmp_path / "repository")
    open_store(fresh).close()
    follower = server(folder, fresh, "after", 0, "follow")
    try:
        assert follower.stdout.readline() == "1\n"
        leader = server(folder, fresh, moment, at)
        _, errors = leader.communicate(timeout=120)
        assert leader.returncode == -signal.SIGKILL, errors
        told, errors = follower.communicate("it is dead\n", timeout=120)
    finally:
        follower.kill()
    assert follower.returncode == 0, errors
    assert told == "2\n"
    store = open_store(fresh)
    entries = store.read(0)
    store.close()
    assert [entry.event for entry in entries] == EVENTS
    assert broken_link(entries) is None
    deciders = [entry.server for entry in entries]
    written = at if moment == "after" else at - 1
    assert deciders == sorted(deciders, key=[*deciders].index)  # one after the other, never mixed
    assert set(deciders[:written]) & set(deciders[written:]) == set()
