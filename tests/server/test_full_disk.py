"""A disk that is really full: nothing is half, and when there is room again all goes on."""

import asyncio
import json
import os
import subprocess

import pytest

from tests.server.publishing.test_publish import draft
from tests.server.remote.stores import http_server
from tuili.errors import Unavailable
from tuili.server.control.store import SqliteStore, broken_link
from tuili.server.protocol.messages import InferRequest
from tuili.server.publishing.publish import publish
from tuili.server.remote.mirror import Mirror
from tuili.server.repository.layout import versions_of
from tuili.server.rollout.history import Entry
from tuili.server.telemetry.access_log import AccessLog
from tuili.server.telemetry.appending import append
from tuili.server.tracing.files import TraceFile
from tuili.server.tracing.trace import Trace


@pytest.fixture
def disk(tmp_path):
    """A file system of 512 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk):
    """Take all that is left."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    return disk / "filler"


def test_the_journal(disk):
    store = SqliteStore(disk / "journal.db")
    first = store.append(Entry("m", "label", "me", numbers={"version": 1}), 0)
    filler = fill(disk)
    long = Entry("m", "label", "me", "x" * 100_000, numbers={"version": 2})
    with pytest.raises(Unavailable, match="nothing was decided. Is the disk full"):
        store.append(long, first.seq)
    assert store.read(0) == [first]
    filler.unlink()
    assert store.append(long, first.seq).seq == 2
    assert broken_link(store.read(0)) is None
    store.close()


def test_a_mirror(disk, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    publish(source, "net", draft(tmp_path, "x" * 300_000))
    with http_server(source) as (url, _):
        copy = Mirror(url, disk)
        filler = fill(disk)
        assert "no room for its" in copy.refresh()["net"]
        assert versions_of(copy.folder / "net") == []
        filler.unlink()
        assert copy.refresh() == {}
        assert versions_of(copy.folder / "net") == [1]


def test_publishing(disk, tmp_path):
    whole = draft(tmp_path, "x" * 300_000)
    publish(disk, "net", draft(tmp_path, "small"))
    filler = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        publish(disk, "net", whole)
    assert versions_of(disk / "net") == [1]
    assert [each.name for each in disk.iterdir() if each.name.startswith(".")] == []
    filler.unlink()
    assert publish(disk, "net", whole).version == 2


def test_an_access_log(disk, caplog):
    async def scenario():
        log = AccessLog(str(disk / "log"))
        note = log.add

        def written(count):
            for number in range(count):
                note("1.2.3.4", "HTTP", ("GET", f"/{number}"), 200, 0, (0, 0))
            log.flush()
            log._thread.submit(int).result()

        written(10)
        filler = fill(disk)
        written(100)
        written(100)
        filler.unlink()
        written(5)
        log.close()

    asyncio.run(scenario())
    lines = [json.loads(line) for line in (disk / "log").read_text().splitlines()]
    assert [line["path"] for line in lines] == [f"/{n}" for n in (*range(10), *range(5))]
    lost, found = (record.message for record in caplog.records)
    assert lost.startswith("access log: lines are lost from now on: [Errno 28]")
    assert found == "access log: 200 lines were lost"


@pytest.mark.parametrize("numbered", [False, True])
def test_traces(disk, numbered):
    def written(count):
        file.write(
            [Trace(frozenset(), InferRequest("m", [])) for _ in range(count)], numbered=numbered
        )
        file._thread.submit(int).result()

    file = TraceFile(disk / "traces")
    filler = fill(disk)
    written(1000)
    filler.unlink()
    written(2)
    filler = fill(disk)
    written(1000)
    filler.unlink()
    written(3)
    file.close()
    paths = sorted(disk.glob("traces*"))
    assert [len(json.loads(path.read_text())) for path in paths] == ([2, 3] if numbered else [5])


def test_half_a_block_is_taken_back(disk):
    append(disk / "file", b"whole")
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        append(disk / "file", bytes(10_000))
    assert (disk / "file").read_bytes() == b"whole"
    append(disk / "file", b"anew", anew=True)
    assert (disk / "file").read_bytes() == b"anew"
