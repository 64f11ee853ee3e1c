"""publish, history, diff, tag and rollback, and the server that loads what they made."""

import json

import onnx
import pytest
from typer.testing import CliRunner

from tests.cli.test_commands import NET
from tuili.cli.main import app
from tuili.server.options import ServerOptions
from tuili.server.registry import record
from tuili.server.trial import on_loaded

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = {
        "old": NET,
        "new": NET.replace("0.5, -0.5", "1, -1"),
        "wide": NET.replace("3] x", "4] x").replace("float[3,", "float[4,"),
    }
    texts["wide"] = texts["wide"].replace("{1, -1, 2, 0, 0, 3}", "{1, -1, 2, 0, 0, 3, 1, 1}")
    for name, text in texts.items():
        onnx.save(onnx.parser.parse_model(text), folder / f"{name}.onnx")
    return folder


@pytest.fixture
def tuili(tmp_path, monkeypatch):
    """Runs a command on a repository; its output, which must be wide for its tables."""
    place = tmp_path / "repository"
    place.mkdir()
    monkeypatch.setenv("TUILI_REPOSITORY", str(place))
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments, fails=False):
        done = RUNNER.invoke(app, list(map(str, arguments)))
        assert done.exit_code == (1 if fails else 0), done.output
        return done.stderr if fails else done.stdout

    run.repository = place
    return run


def test_a_published_model_is_compiled_recorded_and_served(tuili, models, tmp_path):
    (tmp_path / "calibration.npz").write_text("numbers")
    said = tuili(
        "publish", models / "old.onnx", "--name", "net", "--notes", "first",
        "--metric", "top1=0.75",
        "--param", "lr=0.1", "--calibration", tmp_path / "calibration.npz", "--tag", "stable",
    )  # fmt: skip
    assert said.startswith("net version 1: sha256:")
    about = record.read(tuili.repository / "net" / "1")
    assert about.metrics == {"top1": 0.75}
    assert about.parameters == {"lr": "0.1"}
    assert about.provenance.source == "old.onnx"
    assert about.provenance.calibration == "calibration.npz"
    assert about.provenance.options["target"] == "native"
    assert [record.spec_text(each) for each in about.inputs] == ["f32[?,3]"]
    served = on_loaded(
        ServerOptions((tuili.repository,)), [], lambda dataplane: dataplane.repository_index()
    )
    assert served == [{"name": "net", "version": "1", "state": "READY"}]
    shown = tuili("history", "net")
    for word in ("newest", "stable", "top1=0.75", "first"):
        assert word in shown


def test_diff_tells_signature_metrics_and_measures_on_request(tuili, models):
    tuili("publish", models / "old.onnx", "--name", "net", "--metric", "top1=0.5")
    tuili("publish", models / "new.onnx", "--name", "net", "--metric", "top1=0.6")
    shown = tuili("diff", "net", "1", "2", "--measure")
    assert "+0.1 (+20.0%)" in shown
    assert "median ms" in shown
    assert "output y: largest difference" in shown
    assert "0.5" in shown
    assert "same top 1" in shown


def test_another_signature_is_refused_and_diff_shows_it_when_allowed(tuili, models):
    tuili("publish", models / "old.onnx", "--name", "net", "--as-is")
    refused = tuili("publish", models / "wide.onnx", "--name", "net", "--as-is", fails=True)
    assert "was f32[?,3], is f32[?,4]" in refused
    tuili("publish", models / "wide.onnx", "--name", "net", "--as-is", "--allow-signature-change")
    assert "was f32[?,3], is f32[?,4]" in tuili("diff", "net", "1", "2")


def test_rollback_is_what_a_server_loads_next(tuili, models):
    for name in ("old", "new"):
        tuili("publish", models / f"{name}.onnx", "--name", "net", "--as-is")
    said = tuili("rollback", "net", "--why", "worse")
    assert said == "net: version 2 withdrawn, 1 is the newest one\n"
    served = on_loaded(
        ServerOptions((tuili.repository,), onnx_executor="onnxruntime"),
        [],
        lambda dataplane: dataplane.repository_index(),
    )
    assert [each["version"] for each in served] == ["1"]
    assert "worse" in tuili("history", "net", "--events")
    assert tuili("rollback", "net", "--restore", "2") == "net: version 2 is restored\n"


def test_a_damaged_version_is_refused_by_the_server(tuili, models):
    tuili("publish", models / "old.onnx", "--name", "net", "--as-is")
    path = tuili.repository / "net" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    failures = on_loaded(
        ServerOptions((tuili.repository,)), [], lambda dataplane: dataplane.repository.failures()
    )
    assert "model.onnx is damaged" in failures["net"]


WRONG = {
    "no model": (["publish", "nothing.onnx"], "no model 'nothing.onnx'"),
    "metric without a value": (["publish", "{old}", "--metric", "top1"], "expected KEY=VALUE"),
    "metric that is none": (["publish", "{old}", "--metric", "top1=good"], "finite number"),
    "parameter twice": (["publish", "{old}", "--param", "a=1", "--param", "a=2"], "given twice"),
    "a bad name": (["publish", "{old}", "--name", "../x"], "must not contain path traversal"),
    "what cannot be served": (["publish", "{folder}/x.txt"], "cannot be served"),
    "unknown model": (["history", "nte"], "no model 'nte'"),
    "a lost key": (["publish", "{old}", "--as-is", "--sign", "nokey.pem"], "no private key"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_says_what_is_wrong(case, tuili, models):
    (models / "x.txt").write_text("")
    arguments, words = WRONG[case]
    arguments = [each.format(old=models / "old.onnx", folder=models) for each in arguments]
    assert words in tuili(*arguments, fails=True)
    assert list(tuili.repository.iterdir()) == []


def test_a_folder_and_an_artifact_are_published_as_they_are(tuili, models, tmp_path):
    whole = tmp_path / "whole"
    (whole / "data").mkdir(parents=True)
    (whole / "model.py").write_text("")
    (whole / "data" / "words.txt").write_text("a b")
    tuili("publish", whole, "--name", "words")
    files = json.loads((tuili.repository / "words" / "1" / "version.json").read_text())["files"]
    assert set(files) == {"model.py", "data/words.txt"}
    tuili("compile", models / "old.onnx", "-o", tmp_path / "net.tuili", "-q")
    tuili("publish", tmp_path / "net.tuili", "--name", "net")
    assert (tuili.repository / "net" / "1" / "model.tuili" / "manifest.json").is_file()


@pytest.mark.parametrize(
    "command", ["history net", "diff net 1 2", "tag net 1 stable", "rollback net"]
)
def test_a_repository_that_is_not_there_is_named(tuili, command):
    tuili.repository.rmdir()
    assert f"no repository folder '{tuili.repository}'" in tuili(*command.split(), fails=True)
