"""`tuili config`: what it writes is read back, what is wrong is told, what holds is explained."""

import onnx
import pytest
from typer.testing import CliRunner

from tuili.cli.main import app
from tuili.server.repository import formats

RUNNER = CliRunner()
TEXT = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3] x) => (float[n, 3] y) { y = Softplus(x) }"""


def run(*arguments):
    return RUNNER.invoke(app, ["config", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("TUILI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "models"


def add(repository, name, text="", file="config.pbtxt", version="1"):
    folder = repository / name
    (folder / version).mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(TEXT), folder / version / "model.onnx")
    if text:
        (folder / file).write_text(text)
    return folder


@pytest.mark.parametrize("form", ["pbtxt", "yaml", "json"])
@pytest.mark.parametrize("full", ["--full", "--no-full"])
def test_a_generated_configuration_is_read_back_as_it_was_meant(repository, form, full):
    folder = add(repository, "net")
    text = run("generate", folder, "--format", form, full).stdout
    raw, _ = formats.parse(text, form, formats.FILES[f"config.{form}"])
    assert raw["max_batch_size"] == 128
    assert raw["input"][0]["name"] == "x"
    (folder / f"config.{form}").write_text(text)
    assert run("validate", repository).exit_code == 0


@pytest.mark.parametrize("full", ["--full", "--no-full"])
def test_a_generated_configuration_holds_for_versions_of_other_forms(repository, full):
    """An artifact beside an ONNX file: the name of the file is not part of it unless it was."""
    folder = add(repository, "net")
    made = ["compile", str(folder / "1/model.onnx"), "-o", str(folder / "2/model.tuiliz")]
    assert RUNNER.invoke(app, made).exit_code == 0
    (folder / "config.pbtxt").write_text(run("generate", folder, full).stdout)
    assert run("validate", repository).exit_code == 0
    (folder / "1/other.onnx").write_bytes((folder / "1/model.onnx").read_bytes())
    (folder / "2/other.onnx").write_bytes((folder / "1/model.onnx").read_bytes())
    (folder / "config.pbtxt").write_text('default_model_filename: "other.onnx"')
    assert 'default_model_filename: "other.onnx"' in run("generate", folder, full).stdout


def test_validate_tells_what_is_wrong_with_each_model(repository):
    add(repository, "good")
    add(repository, "typo", "max_batch: 4")
    add(repository, "other", 'input { name: "z" data_type: TYPE_FP32 dims: [ 3 ] }')
    add(repository, "late", "version_policy { specific { versions: [ 7 ] } }")
    done = run("validate", repository)
    assert done.exit_code == 1
    for sentence in (
        "ok     good",
        "ModelConfig has no field 'max_batch'. Did you mean 'max_batch_size'?",
        "declares input 'z', which the model does not have",
        "has no version to serve; it has [1]",
        "1 of 4 models are in order",
    ):
        assert sentence in done.stdout


@pytest.mark.parametrize(("text", "code"), [("", 0), ("max_batch_size: 8", 0), ("max_batch: 8", 1)])
def test_validate_takes_the_folder_of_one_model_too(repository, text, code):
    folder = add(repository, "net", text)
    add(repository, "other", "nonsense")
    done = run("validate", folder)
    assert done.exit_code == code
    assert f"{1 - code} of 1 models" in done.stdout
    assert "net" in done.stdout


def test_validate_without_loading_reads_only(repository):
    folder = add(repository, "net")
    (folder / "1" / "model.onnx").write_bytes(b"no model")
    assert run("validate", repository, "--no-load").exit_code == 0
    assert run("validate", repository).exit_code == 1


def test_validate_notes_parameters_that_nobody_reads(repository):
    add(repository, "net", "parameters: {thread: 2}", "config.yaml")
    done = run("validate", repository)
    assert done.exit_code == 0
    assert "parameter 'thread' is not one that tuili reads. Did you mean 'threads'?" in done.stdout


def test_explain_tells_value_origin_and_meaning(repository):
    folder = add(
        repository, "net", "max_batch_size: 8\ndynamic_batching: {preferred_batch_size: [4]}",
        "config.yaml",
    )  # fmt: skip
    shown = " ".join(run("explain", folder).stdout.split())
    for row in (
        "max_batch_size 8 config.yaml:1:1 rows in one run at most",
        "batching dynamic config.yaml:2:1 requests are joined, waiting up to 0 us for more",
        "input x FP32 [3] the model file",
        "runs in the server's process --isolation",
    ):
        assert row in shown


def test_a_model_that_does_not_load_is_one_error(repository):
    folder = add(repository, "net", "max_batch_size: x", "config.yaml")
    done = run("explain", folder)
    assert done.exit_code == 1
    assert "line 1, column 1: expected a whole number, found 'x'" in done.stderr
