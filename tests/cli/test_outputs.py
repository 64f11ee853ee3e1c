"""Files that commands write: refused before the work, whole or not at all, in words."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tuili.artifact.write import refuse_foreign
from tuili.cli.main import app
from tuili.cli.outputs import check_outputs, write_output
from tuili.errors import InvalidArgument

RUNNER = CliRunner()
MODEL = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3] x) => (float[n, 3] y) {y = Softplus(x)}"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(MODEL), "net.onnx")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("as it was")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    ["run net.onnx -o", "explain net.onnx --html", "explain net.onnx --json", "profile net.onnx -o",
     "bench net.onnx --json", "bench net.onnx --csv", "bench net.onnx --plot"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere/out", "the folder 'nowhere' does not exist; make it first"),
        ("file/out", "the folder 'file' is no folder"),
        ("folder", "it is a folder; name a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    command: str, place: str, why: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-compiler-is-called")
    monkeypatch.setenv("TUILI_CACHE", str(here / "cache"))
    result = RUNNER.invoke(app, [*command.split(), place])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: the output {place!r} cannot be written: {why}\n"


def test_a_full_disk_leaves_the_file_that_was_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        really(path, data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(InvalidArgument, match=r"'file' cannot be written: No space left.*: free"):
        write_output(Path("file"), "new text")
    assert Path("file").read_text() == "as it was"
    assert sorted(each.name for each in here.iterdir()) == ["file", "folder", "net.onnx"]


def test_devices_may_be_written_to(here: Path) -> None:
    check_outputs(Path("/dev/null"), None)
    write_output(Path("/dev/null"), "nothing")
    assert not Path("/dev/null").is_file()


def test_outputs_are_saved_under_the_very_name(here: Path) -> None:
    assert RUNNER.invoke(app, ["run", "net.onnx", "-o", "answers"]).exit_code == 0
    with np.load("answers") as found:
        assert found["y"].shape == (1, 3)


@pytest.mark.parametrize("place", ["/dev/null", "pipe"])
def test_an_artifact_never_takes_the_place_of_a_device(place: str, here: Path) -> None:
    """Who may write everywhere would put a folder where /dev/null was."""
    os.mkfifo("pipe")
    with pytest.raises(InvalidArgument, match="is a device, pipe or socket"):
        refuse_foreign(Path(place))


def test_an_artifact_in_an_impossible_place_is_an_error_in_words(here: Path) -> None:
    result = RUNNER.invoke(app, ["compile", "net.onnx", "-o", "file/x.tuili"])
    assert result.exit_code == 1
    assert "the artifact 'file/x.tuili' cannot be written: " in result.stderr
    assert "Errno" not in result.stderr


def test_a_tuning_record_that_keeps_nothing_is_refused_before_measuring(here: Path) -> None:
    result = RUNNER.invoke(app, ["compile", "net.onnx", "--tune", "--tuning", "/dev/null"])
    assert (result.exit_code, "'/dev/null' is no file" in result.stderr) == (1, True)
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("command", ["explain", "profile", "compile", "bench"])
def test_a_compiled_model_is_told_from_a_model_file(command: str, here: Path) -> None:
    (here / "net.tuili").mkdir()
    (here / "net.tuili/manifest.json").write_text(json.dumps({}))
    result = RUNNER.invoke(app, [command, "net.tuili"])
    assert result.exit_code == 1
    assert "artifact" in result.stderr
    assert "made of" in result.stderr or "compiled from" in result.stderr


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(here: Path) -> None:
    result = RUNNER.invoke(app, ["bench", "net.onnx", "--plot", "x.jpg"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "must end in .png or .svg" in result.stderr


def test_a_comparison_in_which_nothing_ran_fails(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-compiler")
    monkeypatch.setenv("TUILI_CACHE", str(here / "cache"))
    asked = ["bench", "net.onnx", "--engine", "tuili", "--rounds", "1"]
    result = RUNNER.invoke(app, [*asked, "--json", "times.json"])
    assert (result.exit_code, "tuili failed: " in result.stdout) == (1, True)
    assert json.loads(Path("times.json").read_text())
    result = RUNNER.invoke(app, [*asked, "--plot", "times.svg"])
    assert (result.exit_code, "nothing to draw" in result.stderr) == (1, True)
