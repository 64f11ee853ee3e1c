"""A real server in a process of its own, over a repository of tiny ONNX models."""

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

READY = re.compile(r"ready: (?P<ports>(?:\w+=\d+ ?)+)models: (?P<models>.*)")

IDENTITY = """
backend: "identity"
max_batch_size: {batch}
input {{ name: "x" data_type: TYPE_FP32 dims: [ {dims} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {dims} ] }}
"""


class Server:
    """A running `tuili serve`: its process, its ports and what it said."""

    def __init__(self, process: subprocess.Popen, line: str):
        self.process = process
        found = READY.match(line)
        assert found, f"{line!r} {'' if line else process.stderr.read()}"
        pairs = found["ports"].split()
        self.ports = {name: int(port) for name, port in (pair.split("=") for pair in pairs)}
        self.models = found["models"].strip().split(", ")

    def url(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"


@contextmanager
def serving(repository: Path, *options: str):
    """Start a server, wait until it says ready, and end it."""
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "tuili", "serve", str(repository), *ports, *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield Server(process, process.stdout.readline())
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def add_identity(repository: Path, name: str, *, batch: int = 8, dims: str = "2", extra: str = ""):
    (repository / name / "1").mkdir(parents=True)
    text = IDENTITY.format(batch=batch, dims=dims) + extra
    (repository / name / "config.pbtxt").write_text(text)


def add_onnx(repository: Path, name: str, model) -> Path:
    onnx = pytest.importorskip("onnx")
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def mlp(seed: int = 0):
    """16 -> 64 -> 10 with ReLU and softmax; any batch."""
    onnx = pytest.importorskip("onnx")
    h, random = onnx.helper, np.random.default_rng(seed)
    weights = [random.standard_normal(shape).astype(np.float32) for shape in ((16, 64), (64, 10))]
    graph = h.make_graph(
        [
            h.make_node("MatMul", ["x", "w0"], ["a"]),
            h.make_node("Relu", ["a"], ["b"]),
            h.make_node("MatMul", ["b", "w1"], ["c"]),
            h.make_node("Softmax", ["c"], ["y"]),
        ],
        "mlp",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 16])],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])],
        [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)


def one_node(op: str, kind: str, shape):
    """A model of one operator with equal input and output."""
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    element = onnx.TensorProto.DataType.Value(kind)
    graph = h.make_graph(
        [h.make_node(op, ["x"], ["y"])],
        "one",
        [h.make_tensor_value_info("x", element, shape)],
        [h.make_tensor_value_info("y", element, shape)],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
