"""A package that is installed brings an operator; every process of tuili finds it by itself."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.end_to_end.conftest import serving
from tests.ops.test_plugin import save_model

http = pytest.importorskip("tritonclient.http")

PACKAGE = """
import numpy as np
import tuili

GATE = tuili.operator(
    "my.company::Gate", "x", "y",
    shape=lambda site: [site.shape(0)],
    meaning=lambda x, limit: np.where(np.abs(x) > limit, x, 0),
    attrs={"limit": 0.5},
)
"""


def install(folder, name, entries, source=PACKAGE):
    """What a package installer leaves behind."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tuili.operators]\n{entries}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return folder


def compile_in_a_child(model):
    command = [sys.executable, "-m", "tuili", "compile", str(model), "-q"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_server_compiles_and_runs_the_operator_of_a_package(site, tmp_path):
    install(site, "gates", "gate = gates:GATE")
    folder = tmp_path / "repository" / "gated" / "1"
    folder.mkdir(parents=True)
    save_model(folder / "model.onnx", alone=True)
    cache = f"--cache={tmp_path / 'cache'}"
    x = np.zeros((1, 16, 8, 8), np.float32)
    tensor = http.InferInput("x", [*x.shape], "FP32")
    tensor.set_data_from_numpy(x)
    with (
        serving(tmp_path / "repository", "--onnx-executor=tuili", cache) as server,
        http.InferenceServerClient(server.url("http")) as client,
    ):
        assert np.array_equal(client.infer("gated", [tensor]).as_numpy("y"), x)


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ([("gates", "g = gates:GONE", PACKAGE)], "'gates' (gates:GONE) cannot be loaded"),
        ([("gates", "g = gates:np", PACKAGE)], "expected operators made by"),
        (
            [("gates", "g = gates:GATE", PACKAGE), ("fences", "f = fences:GATE", PACKAGE)],
            "comes from plug-in 'f' of package 'fences' (fences:GATE) as well",
        ),
    ],
)
def test_a_broken_package_is_named(site, tmp_path, packages, message):
    for name, entries, source in packages:
        install(site, name, entries, source)
    result = compile_in_a_child(save_model(tmp_path / "gated.onnx", alone=True))
    assert result.returncode != 0
    assert message in " ".join(result.stderr.split())
