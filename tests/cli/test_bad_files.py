"""Files that are no models: every command says so in one error, exit code 1, no traceback."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from tuili.cli.main import app

RUNNER = CliRunner()


def tensor(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model_bytes(nodes, inputs=("x",), outputs=("y",), initializers=()):
    graph = helper.make_graph(
        nodes,
        "net",
        [tensor(name, [2, 3]) for name in inputs],
        [tensor(name, None) for name in outputs],
        initializers,
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test"
    )
    return made.SerializeToString()


def escaping_weights():
    """A weight whose data is said to be in a file outside the model's folder."""
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../../../etc/passwd"), ("length", "24")):
        weight.external_data.add(key=key, value=value)
    return model_bytes([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight])


def huge_weight():
    """A weight with 2**62 elements and no data."""
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 31, 1 << 31])
    return model_bytes([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight])


RELU = model_bytes([helper.make_node("Relu", ["x"], ["y"])])
BAD = {
    "empty": b"",
    "text": b"this is no model\n" * 20,
    "truncated": RELU[: len(RELU) // 2],
    "cyclic": model_bytes(
        [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])],
        outputs=("b",),
    ),
    "unknown_operator": model_bytes([helper.make_node("Frobnicate", ["x"], ["y"], name="f")]),
    "missing_tensor": model_bytes([helper.make_node("Add", ["x", "nowhere"], ["y"])]),
    "shape_conflict": model_bytes(
        [helper.make_node("MatMul", ["x", "z"], ["y"])], inputs=("x", "z")
    ),
    "escaping_weights": escaping_weights(),
    "huge_weight": huge_weight(),
    "nan_attribute": model_bytes(
        [helper.make_node("Flatten", ["x"], ["y"], axis=float("nan"))],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_is_one_error(name, tmp_path):
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(BAD[name])
    done = RUNNER.invoke(app, ["compile", str(path), "-o", str(tmp_path / "out.tuili")])
    assert done.exit_code == 1, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "out.tuili").exists()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "net.onnx").write_bytes(RELU)
    done = RUNNER.invoke(app, ["compile", str(folder / "net.onnx")])
    assert done.exit_code == 0, done.output
    return folder / "net.tuili"


def damage_manifest(folder):
    (folder / "manifest.json").write_text("{")


def newer_version(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))


def foreign_processor(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["code"][0]["requires"] = ["quantum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage_code(folder):
    library = next(folder.glob("*.so"))
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 0xFF
    library.write_bytes(data)


def remove_code(folder):
    next(folder.glob("*.so")).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_manifest, "manifest"),
        (newer_version, "version is 99"),
        (foreign_processor, "quantum"),
        (damage_code, "damaged"),
        (remove_code, "missing"),
    ],
)
def test_a_damaged_artifact_is_one_error(artifact, tmp_path, damage, message):
    folder = tmp_path / "copy.tuili"
    shutil.copytree(artifact, folder)
    damage(folder)
    done = RUNNER.invoke(app, ["run", str(folder)])
    assert done.exit_code == 1, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 3), np.float64), "f64"),
        (np.zeros((3, 3), np.float32), "3"),
        (np.zeros(6, np.float32), "x"),
    ],
)
def test_a_wrong_input_is_one_error(artifact, tmp_path, value, message):
    np.save(tmp_path / "x.npy", value)
    done = RUNNER.invoke(app, ["run", str(artifact), "--input", f"x={tmp_path / 'x.npy'}"])
    assert done.exit_code == 1, (done.output, done.exception)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_a_doubtful_model_is_compiled_and_told_of(tmp_path):
    """In one line on stderr, without a place in our code; with --quiet not at all."""
    made = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    net (float[2] x) => (uint8[2] y) <float s = {1.0}, uint8 z = {3}> {
        y = QuantizeLinear (x, s, z)
    }""")
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(np.inf), "s"))
    onnx.save(made, tmp_path / "net.onnx")
    told = RUNNER.invoke(app, ["compile", str(tmp_path / "net.onnx")])
    assert told.exit_code == 0
    assert told.stderr.startswith(f"warning: {tmp_path / 'net.onnx'}: scales of codes are infinite")
    quiet = RUNNER.invoke(app, ["compile", str(tmp_path / "net.onnx"), "-q"])
    assert (quiet.exit_code, quiet.stderr) == (0, "")
