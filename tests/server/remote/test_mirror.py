"""Mirrors of real servers, and what they do when those fail."""

import errno
import hashlib
import random
import shutil
import threading
from pathlib import Path

import pytest

from tests.server.publishing.test_publish import draft
from tests.server.remote.stores import azure_server, gcs_server, http_server, s3_server
from tuili.errors import InvalidArgument, Unavailable
from tuili.server.publishing.publish import publish
from tuili.server.registry.checking import check
from tuili.server.remote import blobs
from tuili.server.remote.mirror import Mirror
from tuili.server.remote.store import Listed, Store, options_for
from tuili.server.repository.layout import versions_of

PART = 1 << 12


@pytest.fixture
def source(tmp_path):
    """A repository with one published and one plain model."""
    place = tmp_path / "source"
    (place / "plain" / "1" / "data").mkdir(parents=True)
    (place / "plain" / "config.pbtxt").write_text('backend: "python"')
    (place / "plain" / "1" / "model.py").write_text("one")
    (place / "plain" / "1" / "data" / "a b.txt").write_text("")
    text = "".join(chr(97 + random.Random(0).randrange(26)) for _ in range(10 * PART + 7))
    publish(place, "net", draft(tmp_path, text))
    return place


@pytest.fixture
def http(source):
    with http_server(source) as (url, faults):
        yield url, faults


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def mirror(url, tmp_path, **options):
    return Mirror(url, tmp_path / "cache", part_bytes=PART, **options)


def big(faults):
    """The bytes of the large file that the server was asked for."""
    return sum(end - start for name, start, end in faults.served if name == "model.py" and end > 3)


def test_a_mirror_has_what_the_repository_has_and_fetches_it_once(source, http, tmp_path):
    url, faults = http
    seen = []
    first = mirror(url, tmp_path)
    assert first.refresh(on_progress=lambda came, wanted: seen.append((came, wanted))) == {}
    assert files(first.folder) == files(source)
    assert seen[-1][0] == seen[-1][1] == sum(map(len, files(source).values()))
    assert big(faults) == 10 * PART + 7
    assert sum(1 for name, *_ in faults.served if name == "model.py") == 12
    assert check(first.folder / "net", 1).version == 1
    faults.served.clear()
    assert mirror(url, tmp_path).refresh() == {}
    assert faults.served == [] or all(name.endswith("/") for name, *_ in faults.served)


def test_a_server_without_ranges_serves_too(source, http, tmp_path):
    url, faults = http
    faults.ranges = False
    copy = mirror(url, tmp_path)
    assert copy.refresh() == {}
    assert files(copy.folder) == files(source)


def test_changes_additions_and_removals_are_followed(source, http, tmp_path):
    url, _ = http
    copy = mirror(url, tmp_path)
    copy.refresh()
    (source / "plain" / "1" / "model.py").write_text("two")
    publish(source, "net", draft(tmp_path, "second"))
    (source / "new" / "3").mkdir(parents=True)
    (source / "new" / "3" / "model.py").write_text("new")
    assert copy.refresh() == {}
    assert files(copy.folder) == files(source)
    for path in sorted((source / "plain").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (source / "plain").rmdir()
    assert copy.refresh() == {}
    assert files(copy.folder) == files(source)


def test_only_the_models_that_are_asked_for_are_fetched(http, tmp_path):
    url, faults = http
    copy = mirror(url, tmp_path)
    assert copy.names() == ["net", "plain"]
    assert copy.refresh(["plain"]) == {}
    assert [each.name for each in copy.folder.iterdir()] == ["plain"]
    assert big(faults) == 0


def test_an_incomplete_version_stays_away_until_it_is_whole(source, http, tmp_path):
    url, _ = http
    copy = mirror(url, tmp_path)
    copy.refresh()
    publish(source, "net", draft(tmp_path, "second"))
    parked = source / "net" / "2" / "model.py"
    content = parked.read_text()
    parked.write_text("sec")
    copy.refresh()
    assert versions_of(copy.folder / "net") == [1]
    parked.write_text(content)
    copy.refresh()
    assert versions_of(copy.folder / "net") == [1, 2]


def test_a_download_that_breaks_off_goes_on_where_it_was(source, http, tmp_path):
    url, faults = http
    faults.cut_after = 5 * PART + 100
    copy = mirror(url, tmp_path)
    failed = copy.refresh()
    assert "cannot be read" in failed["net"] or "truncated" in failed["net"]
    assert versions_of(copy.folder / "plain") == [1]
    assert versions_of(copy.folder / "net") == []
    faults.cut_after = None
    faults.served.clear()
    again = mirror(url, tmp_path)
    assert again.refresh() == {}
    assert files(again.folder) == files(source)
    assert 0 < big(faults) <= 10 * PART + 7 - 5 * PART


def test_a_repository_that_is_down_leaves_what_is_here_and_a_start_without_it_works(http, tmp_path):
    url, faults = http
    copy = mirror(url, tmp_path)
    copy.refresh()
    before = files(copy.folder)
    faults.down = True
    assert "cannot be read" in copy.refresh()[""]
    assert "cannot be read" in mirror(url, tmp_path).refresh()[""]
    assert files(copy.folder) == before
    with pytest.raises(Unavailable, match="cannot be read"):
        Mirror(url, tmp_path / "other").refresh()


def test_an_object_with_another_checksum_is_refused_and_the_former_version_stays(
    source, http, tmp_path
):
    url, _ = http
    copy = mirror(url, tmp_path)
    copy.refresh()
    publish(source, "net", draft(tmp_path, "second"))
    path = source / "net" / "2" / "model.py"
    path.write_text("sacond")
    for _ in range(2):
        assert "model.py is damaged" in copy.refresh()["net"]
        assert versions_of(copy.folder / "net") == [1]
    path.write_text("second")
    assert copy.refresh() == {}
    assert versions_of(copy.folder / "net") == [1, 2]


def test_a_full_disk_is_said_with_numbers_and_nothing_is_lost(http, tmp_path, monkeypatch):
    url, _ = http
    copy = mirror(url, tmp_path)

    def full(handle, content, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(blobs.os, "pwrite", full)
        failed = copy.refresh()
    assert "no room for its" in failed["net"]
    assert "--cache" in failed["net"]
    assert copy.refresh() == {}
    assert versions_of(copy.folder / "net") == [1]


def test_the_same_content_in_two_repositories_is_fetched_once(http, tmp_path):
    url, faults = http
    mirror(url, tmp_path).refresh()
    faults.served.clear()
    assert mirror(url.replace("127.0.0.1", "localhost"), tmp_path).refresh() == {}
    assert big(faults) == 0


def test_s3_by_a_real_server_with_credentials_from_a_file(source, tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setenv("THE_SECRET", "secret")
    with s3_server() as endpoint:
        config = tmp_path / "repositories.toml"
        config.write_text(
            f"""["s3://models"]\nkey = "wrong"\n["s3://models/team"]\nkey = "me"
            secret = "${{THE_SECRET}}"\nclient_kwargs = {{endpoint_url = "{endpoint}"}}"""
        )
        url = "s3://models/team/repository"
        options = options_for(url, config)
        assert options["secret"] == "secret"
        store = Store(url, options)
        store._files.mkdir("models")
        for name, content in files(source).items():
            store._files.pipe_file(f"models/team/repository/{name}", content)
        copy = mirror(url, tmp_path, options=options)
        assert copy.refresh() == {}
        assert files(copy.folder) == files(source)
        store._files.rm("models/team/repository", recursive=True)
        assert "is empty or gone" in copy.refresh()[""]
        assert files(copy.folder) == files(source)
        copy._store = None
    assert copy.refresh()[""]
    assert files(copy.folder) == files(source)


def upload(files_of_source, store, root):
    for name, content in files_of_source.items():
        store._files.pipe_file(f"{root}/{name}", content)


def follows_and_outlives(source, tmp_path, url, options, root):
    """What a mirror must do whatever the store: copy, follow, and keep what it has."""
    store = Store(url, options)
    store._files.mkdir(root.partition("/")[0])
    upload(files(source), store, root)
    copy = mirror(url, tmp_path, options=options)
    assert copy.refresh() == {}
    assert files(copy.folder) == files(source)
    (source / "plain" / "1" / "model.py").write_text("two" * PART)
    publish(source, "net", draft(tmp_path, "second"))
    upload(files(source), store, root)
    assert copy.refresh() == {}
    assert files(copy.folder) == files(source)
    store._files.rm(root, recursive=True)
    assert "is empty or gone" in copy.refresh()[""] or "not found" in copy.refresh()[""]
    assert files(copy.folder) == files(source)


def test_gcs_by_an_emulator(source, tmp_path, monkeypatch):
    # The emulator has no gRPC, which gcsfs asks about kinds of buckets; it is read once, at import.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")
    pytest.importorskip("gcp_storage_emulator")
    with gcs_server() as endpoint:
        options = {"endpoint_url": endpoint, "token": "anon", "project": "p"}
        url, root = "gs://models/team/repository", "models/team/repository"
        follows_and_outlives(source, tmp_path, url, options, root)


def test_azure_by_its_emulator(source, tmp_path):
    pytest.importorskip("adlfs")
    command = shutil.which("azurite-blob")
    if command is None:
        pytest.skip("needs the npm package azurite")
    with azure_server(command, tmp_path / "azurite") as connection:
        url, root = "az://models/team/repository", "models/team/repository"
        options = {"connection_string": connection}
        follows_and_outlives(source, tmp_path, url, options, root)


def test_a_file_that_is_replaced_while_it_is_fetched_is_not_mixed(source, http, tmp_path):
    url, faults = http
    path = source / "plain" / "1" / "weights.bin"
    old, new = b"o" * (9 * PART), b"n" * (9 * PART)
    path.write_bytes(old)
    parts = []

    def replace(asked):
        if asked.name == path.name:
            parts.append(asked)
            if len(parts) == 4:
                (source / "whole").write_bytes(new)
                (source / "whole").replace(path)  # the server never sees a part of it

    faults.before_range = replace
    copy = mirror(url, tmp_path)
    assert "weights.bin changed while it was fetched" in copy.refresh()["plain"]
    assert not (copy.folder / "plain" / "1").exists()
    assert copy.refresh() == {}
    assert (copy.folder / "plain" / "1" / "weights.bin").read_bytes() == new


def test_a_file_that_is_gone_in_the_middle_costs_its_model_only(source, http, tmp_path):
    url, faults = http
    gone = source / "net" / "1" / "model.py"
    content = gone.read_bytes()
    parts = []

    def remove(asked):
        parts.append(asked)
        if asked == gone and len(parts) == 3:
            gone.unlink()
            gone.mkdir()  # so that it is answered with an error, not from memory

    faults.before_range = remove
    copy = mirror(url, tmp_path)
    assert set(copy.refresh()) == {"net"}
    assert versions_of(copy.folder / "plain") == [1]
    gone.rmdir()
    gone.write_bytes(content)
    faults.before_range = lambda path: None
    assert copy.refresh() == {}
    assert files(copy.folder) == files(source)


WRONG_OPTIONS = {
    "no file": (None, "cannot be read"),
    "no TOML": ("[", "cannot be read"),
    "no table": ('"s3://a" = 1', "expected a table"),
    "no such variable": ('["s3://a"]\nkey = "${NOT_SET_ANYWHERE}"', "NOT_SET_ANYWHERE is not set"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_wrong_credentials_files_are_told(case, tmp_path):
    text, words = WRONG_OPTIONS[case]
    path = tmp_path / "repositories.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidArgument, match=words):
        options_for("s3://a/b", path)


class Feeble(Store):
    """A store in memory that answers a number of reads and then dies."""

    def __init__(self, content, reads):
        self.url = "memory://x"
        self.content = content
        self.reads = reads
        self.lock = threading.Lock()

    def mark(self, name):
        return Listed(len(self.content), "tag")

    def read(self, name, start, end):
        with self.lock:
            if not self.reads:
                raise Unavailable("gone")
            self.reads -= 1
        return self.content[start:end]


@pytest.mark.parametrize("reads", range(5))
def test_every_part_that_came_is_fetched_once_only(reads, tmp_path):
    content = random.Random(1).randbytes(4 * 64 + 1)
    cache = blobs.Blobs(tmp_path, part_bytes=64)
    with pytest.raises(Unavailable, match="gone"):
        cache.fetch(Feeble(content, reads), "m", Listed(len(content), "tag"))
    rest = Feeble(content, 5 - reads)
    found = cache.fetch(rest, "m", Listed(len(content), "tag"))
    assert rest.reads == 0
    assert found == hashlib.sha256(content).hexdigest()
    assert cache.path(found).read_bytes() == content
