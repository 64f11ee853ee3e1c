"""Publishing to stores behind URLs: whole for readers, never over each other, decisions kept."""

import threading

import pytest

from tests.server.publishing.test_publish import ME, draft, spec
from tests.server.remote.stores import gcs_server, http_server, s3_server
from tuili.errors import (
    AlreadyExists,
    InvalidArgument,
    InvalidModel,
    NotFound,
    Unavailable,
    Unsupported,
)
from tuili.server.publishing import remote, versions
from tuili.server.publishing.remote import decide, publish
from tuili.server.registry import ledger
from tuili.server.registry.checking import check
from tuili.server.remote.mirror import Mirror
from tuili.server.remote.store import Store
from tuili.server.repository.layout import versions_of


@pytest.fixture(scope="module")
def s3():
    pytest.importorskip("s3fs")
    with s3_server() as endpoint:
        yield {"key": "me", "secret": "s", "client_kwargs": {"endpoint_url": endpoint}}


@pytest.fixture
def bucket(s3, request):
    """(URL, options) of a repository that is empty and the test's own."""
    name = f"b{abs(hash(request.node.nodeid))}"
    Store(f"s3://{name}/team", s3)._files.mkdir(name)
    return f"s3://{name}/team", s3


@pytest.fixture
def store(bucket):
    return Store(*bucket)


@pytest.fixture
def copy(bucket, tmp_path):
    url, options = bucket
    return Mirror(url, tmp_path / "cache", options)


def test_what_is_published_is_what_a_server_reads(store, copy, tmp_path):
    made = [publish(store, "net", draft(tmp_path, text)) for text in ("a", "b")]
    assert [each.version for each in made] == [1, 2]
    assert copy.refresh() == {}
    folder = copy.folder / "net"
    assert [check(folder, number) for number in versions_of(folder)] == made
    assert (folder / "2" / "model.py").read_text() == "b"
    assert [each.action for each in ledger.read(folder).events] == ["publish", "publish"]


def test_decisions_made_behind_a_url_reach_the_servers(store, copy, tmp_path):
    for text in "abc":
        publish(store, "net", draft(tmp_path, text))
    assert decide(store, "net", lambda at: versions.tag(at, "1", "stable", ME)) == 1
    assert decide(store, "net", lambda at: versions.rollback(at, ME, "stable")) == (1, [2, 3])
    states = [each.state for each in decide(store, "net", versions.history)]
    assert states == ["newest", "withdrawn", "withdrawn"]
    copy.refresh()
    assert versions_of(copy.folder / "net") == [1]
    assert decide(store, "net", lambda at: versions.restore(at, "3", ME)) == 3
    copy.refresh()
    assert versions_of(copy.folder / "net") == [1, 3]
    assert ledger.read(copy.folder / "net").tags == {"stable": 1}


def test_a_version_is_there_when_all_of_it_is(store, copy, tmp_path, monkeypatch):
    publish(store, "net", draft(tmp_path, "a"))
    genuine, seen = Store.upload, []

    def slow(self, name, source, on_bytes):
        copy.refresh()
        seen.append(versions_of(copy.folder / "net"))
        seen.append([each.state for each in decide(store, "net", versions.history)])
        genuine(self, name, source, on_bytes)

    monkeypatch.setattr(Store, "upload", slow)
    publish(store, "net", draft(tmp_path, "b"))
    copy.refresh()
    assert seen == [[1], ["newest", "incomplete"]]
    assert versions_of(copy.folder / "net") == [1, 2]


def test_a_publisher_that_dies_leaves_nothing_that_is_served(store, copy, tmp_path, monkeypatch):
    def dies(self, name, source, on_bytes):
        raise Unavailable("the cable is out")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", dies)
        with pytest.raises(Unavailable, match="version 1 of 'net' stays incomplete.*cable is out"):
            publish(store, "net", draft(tmp_path, "a"))
    assert publish(store, "net", draft(tmp_path, "a")).version == 2
    assert copy.refresh() == {}
    assert versions_of(copy.folder / "net") == [2]


def race(publishers):
    found = []
    threads = [
        threading.Thread(target=lambda each=each: found.append(each())) for each in publishers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_many_publishers_at_once_get_a_version_each(bucket, copy, tmp_path):
    def publisher(at):
        folder = tmp_path / str(at)
        folder.mkdir()
        return lambda: publish(Store(*bucket), "net", draft(folder, f"text {at}"))

    made = race([publisher(at) for at in range(5)])
    assert sorted(each.version for each in made) == [1, 2, 3, 4, 5]
    assert copy.refresh() == {}
    for each in made:
        assert check(copy.folder / "net", each.version) == each
    assert len(ledger.read(copy.folder / "net").events) == 5


def test_of_two_who_want_one_number_one_is_refused(store, copy, tmp_path, monkeypatch):
    publish(store, "net", draft(tmp_path, "a"), version=7)
    with pytest.raises(AlreadyExists, match=r"version 7 of 'net' exists in s3://"):
        publish(store, "net", draft(tmp_path, "b"), version=7)
    genuine, raced = remote.publishing.drawn_up, []

    def overtaken(*arguments):
        made = genuine(*arguments)
        if not raced:
            raced.append(True)
            publish(store, "net", draft(tmp_path, "theirs"), version=8)
        return made

    (tmp_path / "ours").mkdir()
    monkeypatch.setattr(remote.publishing, "drawn_up", overtaken)
    with pytest.raises(AlreadyExists, match="version 8"):
        publish(store, "net", draft(tmp_path / "ours", "ours"), version=8)
    copy.refresh()
    assert (copy.folder / "net" / "8" / "model.py").read_text() == "theirs"


def test_who_decides_on_old_knowledge_decides_again(store, tmp_path):
    for text in "ab":
        publish(store, "net", draft(tmp_path, text))
    seen = []

    def slow(folder):
        seen.append(versions_of(folder))
        if len(seen) == 1:
            decide(store, "net", lambda at: versions.rollback(at, ME))
        return versions.tag(folder, str(seen[-1][-1]), "stable", ME)

    assert decide(store, "net", slow) == 1
    assert seen == [[1, 2], [1]]


def test_another_signature_is_refused_behind_a_url_too(store, tmp_path):
    publish(store, "net", draft(tmp_path, inputs=[spec("x", "n", 3)]))
    new = draft(tmp_path, inputs=[spec("x", "n", 4)])
    with pytest.raises(InvalidModel, match="another signature than version 1"):
        publish(store, "net", new)
    assert publish(store, "net", new, allow_signature_change=True).version == 2


def test_what_is_not_there_is_said(store, tmp_path):
    publish(store, "net", draft(tmp_path))
    with pytest.raises(NotFound, match="no model 'nat' in s3://.*Did you mean 'net'"):
        decide(store, "nat", versions.history)
    with pytest.raises(InvalidArgument, match="must not contain path"):
        publish(store, "../net", draft(tmp_path))


def test_a_repository_of_http_is_read_only(tmp_path):
    (tmp_path / "served").mkdir()
    refused = pytest.raises(Unsupported, match="is read-only, as all HTTP repositories are")
    with http_server(tmp_path / "served") as (url, _), refused:
        publish(Store(url), "net", draft(tmp_path))


def two_race_in(store, tmp_path):
    publish(store, "net", draft(tmp_path, "a"))
    assert store.create("net/1/version.json", b"mine") is False
    assert store.create("net/9/version.json", b"mine") is True
    assert store.create("net/9/version.json", b"mine") is True  # it is ours
    assert decide(store, "net", lambda at: versions.tag(at, "1", "stable", ME)) == 1


def test_gcs_by_an_emulator(tmp_path, monkeypatch):
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")
    pytest.importorskip("gcp_storage_emulator")
    with gcs_server() as endpoint:
        options = {"endpoint_url": endpoint, "token": "anon", "project": "p"}
        store = Store("gs://models/team", options)
        store._files.mkdir("models")
        two_race_in(store, tmp_path)


def test_a_folder_behind_a_url(tmp_path):
    (tmp_path / "repository").mkdir()
    two_race_in(Store(f"file://{tmp_path}/repository"), tmp_path)
