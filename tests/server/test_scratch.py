"""Scratch folders: one that its process left is removed, one that is in use never is."""

import subprocess
import sys

import pytest

from tuili.server.scratch import scratch

KILLED = """
import os, signal, sys
from pathlib import Path
from tuili.server.scratch import scratch
with scratch(Path(sys.argv[1]), "making-") as folder:
    (folder / "weights.bin").write_bytes(b"large")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, timeout=60)
    assert done.returncode < 0
    (left,) = tmp_path.glob("making-*")
    assert (left / "weights.bin").exists()
    (tmp_path / "made").mkdir()
    with scratch(tmp_path, "making-"):
        assert not left.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_those_of_others_at_work_stay(tmp_path):
    with scratch(tmp_path, "making-") as first, scratch(tmp_path, "making-") as second:
        assert first.exists()
        assert second.exists()
        assert first != second
    assert not list(tmp_path.iterdir())


def test_one_that_was_moved_to_its_place_stays_there(tmp_path):
    with scratch(tmp_path, "making-") as folder:
        folder.rename(tmp_path / "made")
    with scratch(tmp_path, "making-"):
        pass
    assert (tmp_path / "made").exists()


def test_it_is_gone_after_an_error(tmp_path):
    with pytest.raises(OSError, match="full"), scratch(tmp_path, "making-"):
        raise OSError("full")
    assert not list(tmp_path.iterdir())
