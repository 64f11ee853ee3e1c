"""MLflow's model registry, by its own client over a file store: there and back."""

import sys

import pytest

from tests.server.publishing.test_publish import ME, draft, spec
from tuili.errors import NotFound, Unavailable, Unsupported
from tuili.server.publishing import mlflow_registry, versions
from tuili.server.publishing.mlflow_registry import fetch, mirror
from tuili.server.publishing.publish import publish


@pytest.fixture
def client(tmp_path, monkeypatch):
    """MLflow's client of an empty registry."""
    mlflow = pytest.importorskip("mlflow", reason="needs pip install 'tuili[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlflow")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlflow")
    mlflow.set_registry_uri(f"file://{tmp_path}/mlflow")
    return mlflow.MlflowClient()


@pytest.fixture
def net(tmp_path):
    """The folder of a model with two published versions."""
    (tmp_path / "repository").mkdir()
    for number, text in enumerate("ab"):
        publish(
            tmp_path / "repository",
            "net",
            draft(tmp_path, text, inputs=[spec("x", "n", 3)], metrics={"cer": number / 10},
                  parameters={"lr": "1e-3"}, notes=f"note {text}"),
        )  # fmt: skip
    return tmp_path / "repository" / "net"


def test_versions_are_told_once_with_what_is_known_of_them(client, net):
    versions.tag(net, "2", "stable", ME)
    assert [tuple(each) for each in mirror(net)] == [(1, "1", True), (2, "2", True)]
    assert [tuple(each) for each in mirror(net)] == [(1, "1", False), (2, "2", False)]
    theirs = client.get_model_version_by_alias("net", "stable")
    about = versions.described(net, "2")
    assert theirs.description == "note b"
    assert theirs.tags["tuili.digest"] == about.digest
    assert theirs.tags["tuili.inputs"] == "x float32[?,3]"
    run = client.get_run(theirs.run_id)
    assert (run.data.metrics, run.data.params) == ({"cer": 0.1}, {"lr": "1e-3"})


def test_one_version_by_its_tag(client, net):
    versions.tag(net, "1", "stable", ME)
    assert [tuple(each) for each in mirror(net, "stable")] == [(1, "1", True)]
    with pytest.raises(NotFound, match="has no version 'stabel'"):
        mirror(net, "stabel")


def test_what_was_told_comes_back_with_the_same_digest(client, net, tmp_path):
    mirror(net)
    (tmp_path / "there").mkdir()
    found = fetch("mlflow:models:/net/2", tmp_path / "there")
    assert [each.name for each in found.iterdir()] == ["model.py"]
    assert (found / "model.py").read_text() == "b"


def logged(client, tmp_path, *names):
    """A version in MLflow that another program logged."""
    source = tmp_path / "logged"
    for name in ("MLmodel", *names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    client.create_registered_model("theirs")
    client.create_model_version("theirs", source=f"file://{source}")
    (tmp_path / "there").mkdir()
    return "mlflow:models:/theirs/1"


def test_of_a_model_logged_by_others_the_onnx_file_is_taken(client, tmp_path):
    found = fetch(logged(client, tmp_path, "model.onnx", "requirements.txt"), tmp_path / "there")
    assert found.read_text() == "model.onnx"


def test_what_holds_no_model_says_what_it_holds(client, tmp_path):
    reference = logged(client, tmp_path, "model.pkl")
    with pytest.raises(Unsupported, match=r"holds MLmodel, model.pkl.*, and none is an ONNX file"):
        fetch(reference, tmp_path / "there")


def test_a_version_that_is_not_there_is_said(client, tmp_path):
    with pytest.raises(Unavailable, match=r"models:/no/1 cannot be fetched from MLflow at file:"):
        fetch("mlflow:models:/no/1", tmp_path)


def test_without_mlflow_the_extra_is_named(tmp_path, monkeypatch):
    for name in ("mlflow", "mlflow.artifacts"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unsupported, match=r"pip install 'tuili\[mlflow\]'"):
        mlflow_registry.fetch("mlflow:models:/net/1", tmp_path)
