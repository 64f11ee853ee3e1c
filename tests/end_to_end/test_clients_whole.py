"""The options of `tuili serve` that change what the wire says, on a real server."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving

triton = pytest.importorskip("tritonclient.grpc")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    add_identity(root, "echo", dims="-1")
    return root


def infer(client: Any, array: np.ndarray[Any, Any]) -> Any:
    tensor = triton.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return client.infer("echo", [tensor]).as_numpy("y")


@pytest.mark.parametrize("impl", ["native", "grpcio"])
def test_both_grpc_implementations_serve(repository: Path, impl: str):
    with (
        serving(repository, f"--grpc-impl={impl}", "--server-id=mine") as server,
        triton.InferenceServerClient(server.url("grpc")) as client,
    ):
        assert client.get_server_metadata().name == "mine"
        for size in (1, 100_000):
            array = np.random.default_rng(size).random((2, size), dtype=np.float32)
            np.testing.assert_array_equal(infer(client, array), array)


@pytest.mark.parametrize(("flags", "status"), [([], 400), (["--compat=triton"], 500)])
def test_json_mistakes_have_the_status_that_was_chosen(
    repository: Path, flags: list[str], status: int
):
    # Closed before the server ends: like Triton it waits for clients that keep their connections.
    with (
        serving(repository, *flags) as server,
        closing(http.client.HTTPConnection(server.url("http"), timeout=10)) as connection,
    ):
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1], "data": [1]}
        connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": [tensor]}))
        answer = connection.getresponse()
        assert answer.status == status
        assert "non-unsigned-integer" in json.loads(answer.read())["error"]
        # The mistake cost nothing: the same connection goes on.
        connection.request("GET", "/v2/health/ready")
        assert connection.getresponse().status == 200
