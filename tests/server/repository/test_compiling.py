"""Compilation by a child process, with a compiler that tests stand in for."""

import sys

import pytest

from tuili.errors import InvalidModel, ToolchainError
from tuili.server.repository import compiling

# A stand-in for the interpreter: called as `FAKE -m tuili compile -q SRC -o OUT`.
SCRIPT = """#!/bin/sh
echo run >> "{log}"
{action}
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    log = tmp_path / "log"

    def install(action):
        path = tmp_path / "fake"
        path.write_text(SCRIPT.format(log=log, action=action))
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return log

    return install


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"model")
    return path


def test_a_model_is_compiled_once_per_content(tmp_path, compiler, source):
    log = compiler('cp "$5" "$7"')
    first = compiling.compiled(source, tmp_path / "cache")
    assert first.read_bytes() == b"model"
    assert compiling.compiled(source, tmp_path / "cache") == first
    source.write_bytes(b"other")
    assert compiling.compiled(source, tmp_path / "cache") != first
    assert log.read_text().count("run") == 2


def test_a_cache_that_cannot_be_written_is_told_with_what_helps(tmp_path, compiler, source):
    log = compiler('cp "$5" "$7"')
    taken = tmp_path / "cache"
    taken.write_text("a file")
    with pytest.raises(ToolchainError, match="cache: Not a directory; name a folder"):
        compiling.compiled(source, taken)
    assert not log.exists()


def test_a_cache_that_may_not_be_looked_into_is_told_with_what_helps(
    tmp_path, compiler, source, monkeypatch
):
    def barred(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "exists", barred)
    with pytest.raises(ToolchainError, match="Permission denied: .* name a folder"):
        compiling.compiled(source, tmp_path / "cache")


def test_who_has_no_home_is_told_to_name_a_cache(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in ("TUILI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", nobody)
    with pytest.raises(ToolchainError, match="has no home folder; name a folder"):
        compiling.cache_folder()


def test_inputs_that_may_differ_are_told_to_the_compiler(tmp_path, compiler, source):
    compiler('echo "$*" > "$7"')
    plain = compiling.compiled(source, tmp_path / "cache")
    apart = compiling.compiled(source, tmp_path / "cache", ("x", "count"))
    assert "--shape" not in plain.read_text()
    assert apart.read_text().strip().endswith("--shape=count=* --shape=x=*")


def test_the_precision_is_told_to_the_compiler_and_kept_apart(tmp_path, compiler, source):
    compiler('echo "$*" > "$7"')
    plain, rounded = (
        compiling.compiled(source, tmp_path / "cache", precision=each) for each in ("f32", "bf16")
    )
    assert "--precision" not in plain.read_text()
    assert rounded.read_text().strip().endswith("--precision=bf16")


def test_external_weights_are_part_of_the_content(source):
    before = compiling.content_key(source)
    (source.parent / "weights.data").write_bytes(b"w")
    assert compiling.content_key(source) != before


@pytest.mark.parametrize(
    ("action", "kind", "text"),
    [
        (
            "echo 'error: no such operator' >&2; exit 1",
            InvalidModel,
            "does not compile: error: no such",
        ),
        ("kill -9 $$", InvalidModel, "the compiler died of signal 9"),
        ("exit 0", ToolchainError, "reported success but wrote no model.tuili"),
    ],
)
def test_the_childs_failure_is_the_reason(tmp_path, compiler, source, action, kind, text):
    compiler(action)
    with pytest.raises(kind, match=text):
        compiling.compiled(source, tmp_path / "cache")
    folder = tmp_path / "cache" / compiling.content_key(source)
    assert [each.name for each in folder.iterdir()] == ["lock"]


def test_the_cache_folder(tmp_path, monkeypatch):
    assert compiling.cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("TUILI_CACHE", str(tmp_path))
    assert compiling.cache_folder() == tmp_path / "served"
    monkeypatch.delenv("TUILI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling.cache_folder() == tmp_path / "tuili" / "served"
