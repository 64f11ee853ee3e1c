"""Artifacts are served from a copy."""

import asyncio

import pytest

from tests.server.test_dataplane import plane
from tuili.server.registry.record import RECORD
from tuili.server.repository.keeping import kept


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "m" / "1" / "model.tuili"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"first")
    return folder


def weights(copy):
    return (copy / "weights.bin").read_bytes()


def test_a_copy_is_made_once_of_each_state_and_the_former_one_goes(artifact, tmp_path):
    cache = tmp_path / "cache"
    first = kept(artifact, artifact.parent, cache)
    assert weights(first) == b"first"
    assert first.name == artifact.name
    made = first.stat().st_ino
    assert kept(artifact, artifact.parent, cache).stat().st_ino == made
    (artifact / "weights.bin").write_bytes(b"the second")
    assert weights(first) == b"first"
    second = kept(artifact, artifact.parent, cache)
    assert weights(second) == b"the second"
    assert not first.exists()


def test_artifacts_of_one_file_are_copied_too(tmp_path):
    packed = tmp_path / "m" / "1" / "model.tuiliz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"zip")
    copy = kept(packed, packed.parent, tmp_path / "cache")
    packed.write_bytes(b"")
    assert copy.read_bytes() == b"zip"


def test_a_published_version_is_mapped_where_it_lies(artifact, tmp_path):
    (artifact.parent / RECORD).touch()
    assert kept(artifact, artifact.parent, tmp_path / "cache") == artifact
    assert not (tmp_path / "cache").exists()


def test_without_room_for_a_copy_the_artifact_itself_is_served(artifact, tmp_path, caplog):
    (tmp_path / "cache").touch()
    assert kept(artifact, artifact.parent, tmp_path / "cache") == artifact
    assert "is served in place" in caplog.text


def test_an_error_names_the_artifact_and_not_its_copy(artifact, tmp_path):
    async def scenario():
        dataplane = plane(tmp_path, cache=tmp_path / "cache")
        await dataplane.start()
        return dataplane.repository.failures()["m"]

    told = asyncio.run(scenario())
    assert str(artifact) in told
    assert "kept" not in told
