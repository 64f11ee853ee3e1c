"""kill -9 after every write of a promotion: one pointer on restart, and the roll-out goes on."""

import signal
import subprocess
import sys

import pytest

from tests.server.test_dataplane import IDENTITY
from tuili.server.control.store import SqliteStore, broken_link
from tuili.server.rollout.history import World

EVENTS = ["created", "started", "loaded", "step", "promoting", "pointer"]


def promote(repository, kill_after):
    command = [sys.executable, "-m", "tests.server.control.promotion", repository, str(kill_after)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", range(1, len(EVENTS) + 1), ids=EVENTS)
def test_killed_after_any_write_the_server_comes_back_to_one_pointer(tmp_path, kill_after):
    for version in ("1", "2"):
        (tmp_path / "m" / version).mkdir(parents=True)
    text = IDENTITY + "version_policy { specific { versions: 1 } }"
    (tmp_path / "m" / "config.pbtxt").write_text(text)

    died = promote(tmp_path, kill_after)
    assert died.returncode == -signal.SIGKILL, died.stderr
    store = SqliteStore(tmp_path / ".tuili" / "journal.db")
    entries = store.read(0)
    assert [entry.event for entry in entries] == EVENTS[:kill_after]
    world = World()
    for entry in entries:
        world.apply(entry)
    pointer = world.model("m").pointer

    again = promote(tmp_path, 0)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == [str(pointer), "2"]
    entries = store.read(0)
    assert [entry.event for entry in entries] == EVENTS
    assert broken_link(entries) is None
    store.close()
