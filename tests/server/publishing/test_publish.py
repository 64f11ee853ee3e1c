"""Publishing, history, tags and rollback in a repository on disk."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tuili.artifact.manifest import TensorEntry
from tuili.errors import (
    AlreadyExists,
    InvalidArgument,
    InvalidArtifact,
    InvalidModel,
    NotFound,
)
from tuili.server.publishing import publish as publishing
from tuili.server.publishing import versions
from tuili.server.publishing.publish import Draft, publish
from tuili.server.publishing.versions import By
from tuili.server.registry import ledger, record, signing
from tuili.server.registry.checking import check, is_whole
from tuili.server.registry.record import RECORD, SEAL, Provenance
from tuili.server.repository.layout import find_models, fingerprint, versions_of

ME = By("me", "2026-01-01T00:00:00+00:00", "a test")
ORIGIN = Provenance(
    source="m.onnx", source_sha256="0" * 64, producer="tuili test", at=ME.at, user=ME.user
)


def spec(name, *shape, dtype="float32"):
    return TensorEntry(name=name, dtype=dtype, shape=list(shape))


def draft(folder: Path, text: str = "weights", inputs=None, **facts) -> Draft:
    source = folder / "source.bin"
    source.write_text(text)
    outputs = None if inputs is None else [spec("y", "n", 2)]
    return Draft({"model.py": source}, ORIGIN, inputs, outputs, **facts)


@pytest.fixture
def repository(tmp_path):
    place = tmp_path / "repository"
    place.mkdir()
    return place


@pytest.fixture
def make(repository, tmp_path):
    def make(text="weights", model="net", **options):
        return publish(repository, model, draft(tmp_path, text), **options)

    return make


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private and public PEM files of two people."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder, found = tmp_path_factory.mktemp("keys"), {}
    for name in ("ours", "theirs"):
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
        )
        public = key.public_key().public_bytes(
            form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
        )
        found[name] = (folder / f"{name}.pem", folder / f"{name}.pub")
        found[name][0].write_bytes(private)
        found[name][1].write_bytes(public)
    return found


def test_versions_are_numbered_and_their_record_tells_all(repository, make):
    assert [make("a").version, make("b").version] == [1, 2]
    about = record.read(repository / "net" / "2")
    assert about.follows == 1
    assert set(about.files) == {"model.py"}
    assert about.digest == record.digest_of(about.files)
    assert record.decode(record.encode(about), "again") == about
    assert check(repository / "net", 2) == about


def test_the_same_content_has_the_same_digest(make):
    assert make("a").digest == make("a", model="other").digest != make("b").digest


def test_nothing_hidden_is_left_and_nothing_hidden_is_a_model(repository, make):
    make()
    (repository / ".publishing-of-someone-who-died").mkdir()
    assert set(find_models([repository])) == {"net"}
    with pytest.raises(InvalidArgument, match="nothing to publish"):
        publish(repository, "net", Draft({}, ORIGIN))
    assert sorted(each.name for each in repository.iterdir()) == [
        ".publishing-of-someone-who-died",
        "net",
    ]


def test_a_version_that_exists_is_never_replaced(repository, make):
    make("a", version=7)
    with pytest.raises(AlreadyExists, match="version 7 of 'net' exists"):
        make("b", version=7)
    assert (repository / "net" / "7" / "model.py").read_text() == "a"
    assert make("b").version == 8


def test_who_loses_the_race_for_a_number_takes_the_next(repository, make, monkeypatch):
    make("a")
    genuine, raced = publishing._move, []

    def overtaken(content, folder, version):
        if not raced:
            raced.append(version)
            make("theirs")
        return genuine(content, folder, version)

    monkeypatch.setattr(publishing, "_move", overtaken)
    assert make("ours").version == 3
    assert (repository / "net" / "2" / "model.py").read_text() == "theirs"


def test_many_publishers_at_once_get_a_version_each(repository, tmp_path):
    found, drafts = [], []
    for at in range(8):
        (tmp_path / str(at)).mkdir()
        drafts.append(draft(tmp_path / str(at), f"text {at}"))
    threads = [
        threading.Thread(target=lambda each=each: found.append(publish(repository, "net", each)))
        for each in drafts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.version for each in found) == list(range(1, 9))
    assert versions_of(repository / "net") == list(range(1, 9))
    assert len(ledger.read(repository / "net").events) == 8


CHANGES = {
    "same": (spec("x", "n", 3), None),
    "open dim renamed": (spec("x", "batch", 3), None),
    "another dim": (spec("x", "n", 4), r"'x' was float32\[\?,3\], is float32\[\?,4\]"),
    "another type": (spec("x", "n", 3, dtype="int64"), "is int64"),
    "another name": (spec("z", "n", 3), "'x' float32.* is gone; input 'z' .* is new"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_another_signature_is_refused_unless_allowed(case, repository, tmp_path):
    changed, words = CHANGES[case]
    publish(repository, "net", draft(tmp_path, inputs=[spec("x", "n", 3)]))
    new = draft(tmp_path, "b", inputs=[changed])
    if words is None:
        assert not publish(repository, "net", new).signature_changed
        return
    with pytest.raises(InvalidModel, match=words):
        publish(repository, "net", new)
    assert versions_of(repository / "net") == [1]
    assert publish(repository, "net", new, allow_signature_change=True).signature_changed
    assert check(repository / "net", 2).version == 2


def test_a_copied_version_with_another_signature_is_refused_at_load(repository, tmp_path):
    publish(repository, "net", draft(tmp_path, inputs=[spec("x", "n", 3)]))
    made = publish(
        repository, "net", draft(tmp_path, inputs=[spec("z")]), allow_signature_change=True
    )
    path = repository / "net" / "2" / RECORD
    path.write_text(path.read_text().replace('"signature_changed": true', '"notes": ""'))
    assert made.signature_changed
    with pytest.raises(InvalidArtifact, match="another signature than version 1"):
        check(repository / "net", 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


TAMPERED = {
    "a changed file": (lambda v: flip(v / "model.py"), "is damaged"),
    "a lost file": (lambda v: (v / "model.py").unlink(), "is missing"),
    "a file too many": (lambda v: (v / "model.onnx").write_text("x"), "does not list"),
    "no JSON": (lambda v: (v / RECORD).write_text("{"), "no record of a version"),
    "a copied folder": (lambda v: v.rename(v.parent / "9") and v.mkdir(), "is version 1"),
    "a way out": (
        lambda v: (v / RECORD).write_text(
            (v / RECORD).read_text().replace('"model.py"', '"../model.py"')
        ),
        "outside the version's folder",
    ),
    "another digest": (
        lambda v: (v / RECORD).write_text(
            (v / RECORD).read_text().replace('"digest": "sha256:', '"digest": "sha256:' + "0" * 64)
        ),
        "no record|digest",
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_version_that_is_not_what_its_record_says_is_refused(case, repository, make):
    make()
    spoil, words = TAMPERED[case]
    spoil(repository / "net" / "1")
    version = 9 if (repository / "net" / "9").exists() else 1
    with pytest.raises(InvalidArtifact, match=words):
        check(repository / "net", version)


def test_a_half_copied_version_is_not_there_yet(repository, make):
    make("a")
    before = fingerprint(repository / "net")
    make("b" * 1000)
    target, parked = repository / "net" / "2" / "model.py", repository / "model.py"
    target.rename(parked)
    assert versions_of(repository / "net") == [1]
    assert fingerprint(repository / "net") == before
    target.write_text("b" * 500)
    assert not is_whole(repository / "net" / "2")
    assert fingerprint(repository / "net") == before
    target.write_text("b" * 1000)
    assert versions_of(repository / "net") == [1, 2]
    assert fingerprint(repository / "net") != before
    assert check(repository / "net", 2).version == 2


def test_rollback_withdraws_and_restore_takes_it_back(repository, make):
    for text in "abc":
        make(text)
    folder = repository / "net"
    three = fingerprint(folder)
    assert versions.rollback(folder, ME) == (2, [3])
    assert versions_of(folder) == [1, 2]
    assert fingerprint(folder) != three
    assert versions.rollback(folder, ME, "1") == (1, [2])
    assert [each.state for each in versions.history(folder)] == ["newest", "withdrawn", "withdrawn"]
    with pytest.raises(NotFound, match="no version to go back to"):
        versions.rollback(folder, ME)
    assert versions.restore(folder, "3", ME) == 3
    assert versions_of(folder) == [1, 3]
    assert fingerprint(folder) != three
    assert make("d").version == 4
    actions = [(each.action, each.version) for each in ledger.read(folder).events]
    assert actions[3:] == [("withdraw", 3), ("withdraw", 2), ("restore", 3), ("publish", 4)]


def test_a_tag_stands_for_a_version_and_moves(repository, make):
    make("a")
    make("b")
    folder = repository / "net"
    before = fingerprint(folder)
    assert versions.tag(folder, "1", "stable", ME) == 1
    assert versions.resolve(folder, "stable") == 1
    assert versions.tag(folder, "2", "stable", ME) == 2
    assert [each.tags for each in versions.history(folder)] == [(), ("stable",)]
    assert versions.untag(folder, "stable", ME) == 2
    assert fingerprint(folder) == before  # a tag reloads nothing


WRONG = {
    "no such version": (lambda f: versions.tag(f, "9", "x", ME), NotFound, "has no version '9'"),
    "no such tag": (lambda f: versions.resolve(f, "stabel"), NotFound, "Did you mean 'stable'"),
    "tag like a number": (lambda f: versions.tag(f, "1", "7", ME), InvalidArgument, "invalid tag"),
    "untag nothing": (lambda f: versions.untag(f, "x", ME), NotFound, "has no tag 'x'"),
    "back to the newest": (lambda f: versions.rollback(f, ME, "2"), InvalidArgument, "already"),
    "restore what is there": (lambda f: versions.restore(f, "1", ME), InvalidArgument, "is not"),
    "no record": (lambda f: versions.described(f, "3"), NotFound, "has no record"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_decisions_are_refused_in_words(case, repository, make):
    make("a")
    make("b")
    folder = repository / "net"
    versions.tag(folder, "1", "stable", ME)
    if case == "no record":
        (folder / "3").mkdir()
    act, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        act(folder)


def test_a_damaged_ledger_says_which_file(repository, make):
    make()
    (repository / "net" / ledger.LEDGER).write_text("[")
    with pytest.raises(InvalidModel, match=r"registry\.json cannot be read"):
        versions_of(repository / "net")
    assert fingerprint(repository / "net")


def test_a_signed_version_is_trusted_by_who_has_the_public_key(repository, make, keys):
    (private, public), (_, stranger) = keys["ours"], keys["theirs"]
    make("a", key=private)
    folder = repository / "net"
    assert check(folder, 1, [stranger, public]).version == 1
    with pytest.raises(InvalidArtifact, match="not among the trusted ones"):
        check(folder, 1, [stranger])
    make("b")
    with pytest.raises(InvalidArtifact, match="is not signed"):
        check(folder, 2, [public])


UNSIGNED = {
    "changed notes": (lambda v: (v / RECORD).write_text((v / RECORD).read_text() + " "), "changed"),
    "changed file": (lambda v: flip(v / "model.py"), "is damaged"),
    "no signature": (lambda v: (v / SEAL).write_text("{}"), "is no signature"),
    "seal of another": (
        lambda v: (v / SEAL).write_bytes((v.parent / "2" / SEAL).read_bytes()),
        "changed",
    ),
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_what_was_changed_after_signing_is_refused(case, repository, make, keys):
    private, public = keys["ours"]
    make("a", key=private)
    make("b", key=private)
    spoil, words = UNSIGNED[case]
    spoil(repository / "net" / "1")
    with pytest.raises(InvalidArtifact, match=words):
        check(repository / "net", 1, [public])


def test_keys_that_are_none_are_refused(tmp_path, keys):
    private, public = keys["ours"]
    with pytest.raises(InvalidArgument, match="no private key"):
        signing.sign(b"", public)
    with pytest.raises(InvalidArgument, match="no public key"):
        signing.public_keys([private])


KILLED = """
import os, sys
from pathlib import Path
from tuili.server.publishing import publish as publishing
step, folder = int(sys.argv[1]), Path(sys.argv[2])
calls = 0
def dying(path, genuine=publishing._sync):
    global calls
    genuine(path)
    calls += 1
    if calls == step:
        os.kill(os.getpid(), 9)
publishing._sync = dying
from tests.server.publishing.test_publish import draft
publishing.publish(folder / "repository", "net", draft(folder, "b"))
print(calls)
"""


def test_a_publisher_that_is_killed_anywhere_leaves_whole_versions(repository, make, tmp_path):
    """`kill -9` after each write to the disk in turn."""
    make("a")

    def publishing_in_a_process(step):
        command = [sys.executable, "-c", KILLED, str(step), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    steps = int(publishing_in_a_process(0).stdout)
    assert steps >= 4
    for step in range(1, steps + 1):
        assert publishing_in_a_process(step).returncode == -9
        for number in versions_of(repository / "net"):
            assert check(repository / "net", number).version == number
    assert make("c").version == max(versions_of(repository / "net"))
