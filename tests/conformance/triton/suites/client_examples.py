"""Triton's own client examples against our server: what every user of it runs first."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.triton import servers, sources
from tests.conformance.triton.suites.suite import copy

_MODELS = (
    "simple",
    "simple_string",
    "simple_int8",
    "simple_sequence",
    "simple_dyna_sequence",
    "simple_identity",
)
_TIMEOUT_S = 120

SKIPS = {
    "image_client.py": "needs inception_onnx, which its script downloads",
    "grpc_image_client.py": "needs inception_onnx, which its script downloads",
    "ensemble_image_client.py": "needs inception_onnx and an image back end",
    "simple_grpc_cudashm_client.py": "needs a GPU",
    "simple_http_cudashm_client.py": "needs a GPU",
    "grpc_client.py": "needs densenet_onnx, which its script downloads",
    "memory_growth_test.py": "measures the client, takes minutes",
}
_ARGUMENTS = {
    "simple_grpc_sequence_stream_infer_client.py": ["--dyna"],
    "simple_grpc_keepalive_client.py": [],
}
_EXPLICIT = ("simple_grpc_model_control.py", "simple_http_model_control.py")
_REPEAT = """name: "repeat_int32"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: True }
input [ { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }, { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] }, { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] } ]
"""
REPEAT_MODEL = """
import threading, time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            get = lambda name: pb.get_input_tensor_by_name(request, name).as_numpy()
            threading.Thread(target=self.answer, args=(request.get_response_sender(), get("IN").copy(), get("DELAY").copy())).start()
            time.sleep(int(get("WAIT").reshape(-1)[0]) / 1000)
        return None

    def answer(self, sender, values, delays):
        for at, (value, delay) in enumerate(zip(values.reshape(-1), delays.reshape(-1))):
            time.sleep(int(delay) / 1000)
            sender.send(pb.InferenceResponse([pb.Tensor("OUT", np.array([value], np.int32)), pb.Tensor("IDX", np.array([at], np.uint32))]))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One example: passed, failed or skipped."""

    name: str
    result: str
    reason: str = ""


def run(scratch: Path) -> list[Outcome]:
    """All Python examples, those of the model control extension with a server of their own."""
    folder = sources.client() / "src" / "python" / "examples"
    names = sorted(path.name for path in folder.glob("*.py"))
    repository = scratch / "models"
    for name in _MODELS:
        copy(sources.server() / "docs" / "examples" / "model_repository" / name, repository / name)
    (repository / "repeat_int32" / "1").mkdir(parents=True)
    (repository / "repeat_int32" / "config.pbtxt").write_text(_REPEAT)
    (repository / "repeat_int32" / "1" / "model.py").write_text(REPEAT_MODEL)
    found: list[Outcome] = [Outcome(n, "skipped", SKIPS[n]) for n in names if SKIPS.get(n)]
    with servers.tuili(
        repository, scratch / "server.log", "--allow-client-shm", "--compat", "triton"
    ) as server:
        found += [
            _one(folder / name, server, scratch)
            for name in names
            if not SKIPS.get(name) and name not in _EXPLICIT
        ]
    arguments = ("--model-control-mode", "explicit", "--compat", "triton")
    # They count the models of the repository: seven over HTTP, eight over gRPC.
    for name in reversed(_EXPLICIT):
        with servers.tuili(repository, scratch / "control.log", *arguments) as server:
            found.append(_one(folder / name, server, scratch))
        copy(repository / "simple_string", repository / "another")
        (repository / "another" / "config.pbtxt").unlink()
    return sorted(found, key=lambda each: each.name)


def _one(path: Path, server: servers.Server, scratch: Path) -> Outcome:
    text = path.read_text()
    for name, usual in (("http", "8000"), ("grpc", "8001")):
        text = re.sub(rf"(?<![0-9]){usual}(?![0-9])", str(server.ports[name]), text)
    script = scratch / path.name
    script.write_text(text)
    port = server.ports["http" if "http" in path.name else "grpc"]
    line = [sys.executable, str(script), "-v", "-u", f"127.0.0.1:{port}"]
    if path.name == "reuse_infer_objects_client.py":
        line = [sys.executable, str(script), "-v"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(path.name, "failed", f"not done in {_TIMEOUT_S} s")
    if done.returncode:
        return Outcome(path.name, "failed", (done.stdout + done.stderr)[-500:])
    return Outcome(path.name, "passed")
