"""What is being copied into a repository is not served before it is whole."""

import asyncio
import os
import shutil
import subprocess
import time

import pytest

from tests.server.repository.test_lifecycle import Launcher
from tuili.errors import InvalidModel
from tuili.server.registry.record import RECORD
from tuili.server.repository.lifecycle import Repository
from tuili.server.repository.settling import being_written, copies, unsettled

SETTLE_S = 5.0


def version(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("age_s", "why"),
    [
        (0.0, "it is being copied: 'b.bin' changed 0.0 s ago"),
        (4.0, "it is being copied: 'b.bin' changed 4.0 s ago"),
        (5.0, ""),
        (-60.0, ""),  # the clock was set back: nothing is known of its age
    ],
)
def test_a_version_settles_when_nothing_changed_for_a_while(tmp_path, age_s, why):
    folder = version(tmp_path / "1", "a.bin")
    changed = version(folder, "b.bin").joinpath("b.bin").stat().st_ctime
    assert unsettled(folder, changed + age_s, SETTLE_S) == why


def test_times_that_a_copy_keeps_do_not_count(tmp_path):
    source = version(tmp_path / "source", "a.bin")
    os.utime(source / "a.bin", (1, 1))
    shutil.copytree(source, tmp_path / "m" / "1")
    assert (tmp_path / "m" / "1" / "a.bin").stat().st_mtime == 1
    assert "changed" in copies(tmp_path / "m", time.time(), SETTLE_S)[1]


def test_a_record_speaks_for_its_version(tmp_path):
    folder = version(tmp_path / "1", "a.bin", RECORD)
    assert unsettled(folder, time.time(), SETTLE_S) == ""


def test_a_file_that_a_process_writes_is_not_whole_however_long_it_pauses(tmp_path):
    folder = version(tmp_path / "1", "a.bin")
    now = time.time() + SETTLE_S + 1
    # Another process, as `scp` is one.
    writer = subprocess.Popen(
        ["sh", "-c", f"exec 3>>{folder}/a.bin; echo open; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    writer.stdout.readline()
    assert unsettled(folder, now, SETTLE_S) == "it is being copied: a process is writing 'a.bin'"
    # A file system without leases says so for ever; it is believed for half a minute.
    assert being_written(folder, now + 60) == ""
    writer.communicate(b"\n")
    assert unsettled(folder, now, SETTLE_S) == ""


def test_a_half_copied_version_is_in_the_index_and_the_former_one_serves(tmp_path):
    (version(tmp_path / "m" / "1", "a.bin") / RECORD).write_text("{}")
    launcher = Launcher()
    repository = Repository([tmp_path], launcher, settle_s=60.0)

    async def scenario():
        await repository.load("m")
        half = version(tmp_path / "m" / "2", "a.bin")
        assert not await repository.poll()
        assert [each.number for each in launcher.made] == [1]
        (first, second) = repository.index()
        assert (first["version"], first["state"]) == ("1", "READY")
        assert (second["version"], second["state"]) == ("2", "UNAVAILABLE")
        assert second["reason"].startswith("it is being copied: 'a.bin' changed")
        assert repository.failures() == {}
        (half / RECORD).write_text("{}")  # it says that it is whole
        assert await repository.poll()
        await repository.close()

    asyncio.run(scenario())
    assert [each.number for each in launcher.made] == [1, 2]


def test_whoever_asks_for_half_a_version_is_told(tmp_path):
    folder = version(tmp_path / "m" / "1", "a.bin")
    launcher = Launcher()
    repository = Repository([tmp_path], launcher)
    with (
        (folder / "a.bin").open("ab"),
        pytest.raises(InvalidModel, match=r"m/1 is not whole yet: .* is writing 'a.bin'; load it"),
    ):
        asyncio.run(repository.load("m"))
    asyncio.run(repository.load("m"))
    assert len(launcher.made) == 1
