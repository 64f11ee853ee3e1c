"""Unmodified HTTP clients against the HTTP front end over a fake data plane, on real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.running import Running, running
from tuili.server import http as front_end
from tuili.server.http.limits import HttpLimits
from tuili.server.listening import Address

triton = pytest.importorskip("tritonclient.http")
from tritonclient.http import aio  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

BIG = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    limits = HttpLimits(max_head_bytes=4096)
    with running(
        lambda plane: front_end.start(plane, Address("127.0.0.1", 0), limits=limits)
    ) as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as found:
        yield found


def pair(binary: bool = True) -> list[Any]:
    inputs = [triton.InferInput(f"INPUT{index}", [1, 16], "INT32") for index in range(2)]
    inputs[0].set_data_from_numpy(np.arange(16, dtype=np.int32).reshape(1, 16), binary)
    inputs[1].set_data_from_numpy(np.full((1, 16), 2, np.int32), binary)
    return inputs


def one(array: np.ndarray[Any, Any], datatype: str, binary: bool = True) -> list[Any]:
    tensor = triton.InferInput("INPUT", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary)
    return [tensor]


def test_health_and_metadata(client: Any):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "tuili"
    assert client.get_model_metadata("simple")["inputs"][0]["shape"] == [-1, 16]
    assert client.get_model_config("simple")["max_batch_size"] == 8
    assert client.get_inference_statistics("simple")["model_stats"][0]["inference_count"] == 3


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_inference(client: Any, binary: bool, coding: str | None):
    outputs = [
        triton.InferRequestedOutput("OUTPUT1", binary_data=not binary),
        triton.InferRequestedOutput("OUTPUT0", binary_data=binary),
    ]
    result = client.infer(
        "simple",
        pair(binary),
        outputs=outputs,
        request_id="7",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert result.get_response()["id"] == "7"
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0")[0], np.arange(16) + 2)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1")[0], np.arange(16) - 2)


@pytest.mark.parametrize("binary", [True, False])
def test_text_goes_both_ways(client: Any, binary: bool):
    data = np.array([["abc", "é"], ["", "\U0001f600"]], object)
    outputs = [triton.InferRequestedOutput("OUTPUT", binary_data=binary)]
    result = client.infer("identity", one(data, "BYTES", binary), outputs=outputs)
    found = result.as_numpy("OUTPUT")
    decoded = [item.decode() if isinstance(item, bytes) else item for item in found.reshape(-1)]
    assert decoded == data.reshape(-1).tolist()


@pytest.mark.parametrize("model", ["identity", "later"])
def test_large_tensors(client: Any, model: str):
    for _ in range(5):
        result = client.infer(model, one(BIG, "FP32"))
        np.testing.assert_array_equal(result.as_numpy("OUTPUT"), BIG)


def test_an_empty_tensor(client: Any):
    result = client.infer("identity", one(np.empty((0, 4), np.float32), "FP32"))
    assert result.as_numpy("OUTPUT").shape == (0, 4)


@pytest.mark.parametrize(
    ("model", "status", "text"),
    [("nope", "404", "unknown model"), ("busy", "503", "queue size"), ("bug", "500", "broke")],
)
def test_errors_reach_the_client(client: Any, model: str, status: str, text: str):
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.infer(model, one(BIG[..., 0], "FP32"))
    assert caught.value.status() == status


def test_models_are_loaded_and_listed(client: Any, server: Running):
    client.load_model("m", config="{}", files={"file:1/model.bin": b"\x00\x01"})
    client.unload_model("m", unload_dependents=True)
    assert server.dataplane.loaded[-1] == ("m", {"config": "{}", "file:1/model.bin": b"\x00\x01"})
    assert server.dataplane.unloaded[-1] == ("m", True)
    assert client.get_model_repository_index()[0]["state"] == "READY"


def test_regions_and_settings(client: Any):
    client.register_system_shared_memory("r", "/k", 64, offset=8)
    (region,) = client.get_system_shared_memory_status("r")
    assert region == {"name": "r", "key": "/k", "offset": 8, "byte_size": 64}
    client.unregister_system_shared_memory("r")
    assert client.get_system_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="not supported"):
        client.get_cuda_shared_memory_status()
    assert client.update_trace_settings(settings={"trace_rate": "5"})["trace_rate"] == "5"
    assert client.get_trace_settings("simple")["trace_rate"] == "5"
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.get_log_settings()["log_info"] is True


def test_many_clients_at_once_get_their_own_answers(server: Running):
    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            for _ in range(20):
                array = rng.random((1, int(rng.integers(1, 30_000))), dtype=np.float32)
                result = client.infer("later", one(array, "FP32"), request_id=str(seed))
                same = np.array_equal(result.as_numpy("OUTPUT"), array)
                if not same or result.get_response()["id"] != str(seed):
                    return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_asynchronous_client(server: Running):
    async def scenario() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(client.infer("simple", pair()) for _ in range(20)))
            for result in results:
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0")[0], np.arange(16) + 2)
            result = await client.infer("identity", one(BIG, "FP32"))
            np.testing.assert_array_equal(result.as_numpy("OUTPUT"), BIG)
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nope", pair())

    asyncio.run(scenario())


def test_a_client_that_leaves_cancels_its_request(server: Running):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    tensor = {"name": "INPUT", "datatype": "INT32", "shape": [1], "data": [1]}
    connection.request("POST", "/v2/models/held/infer", json.dumps({"inputs": [tensor]}))
    ticket = server.held()
    connection.close()
    assert server.until(lambda: ticket.cancelled)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: Running, tmp_path: Path):
    url = f"http://127.0.0.1:{server.port}/v2/models/identity/infer"
    tensor = {"name": "INPUT", "datatype": "FP32", "shape": list(BIG.shape), "data": BIG.tolist()}
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"inputs": [tensor]}))
    for flags in (
        ["--data-binary", f"@{body}"],  # above a megabyte curl asks for 100-continue
        ["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{body}"],
        ["--http1.0", "--data-binary", f"@{body}"],
        ["--compressed", "--data-binary", f"@{body}"],
    ):
        done = subprocess.run(
            ["curl", "-sS", "-m", "20", "-w", "%{http_code}", *flags, url],
            capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout[-3:] == b"200", done.stdout[:200]
        found = np.array(json.loads(done.stdout[:-3])["outputs"][0]["data"], np.float32)
        np.testing.assert_array_equal(found, BIG.reshape(-1))


def test_a_refusal_reaches_a_client_that_still_sends(server: Running):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 200_000)
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_draining_server_finishes_what_it_has():
    with running(lambda plane: front_end.start(plane, Address("127.0.0.1", 0))) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        tensor = {"name": "INPUT", "datatype": "INT32", "shape": [1], "data": [1]}
        connection.request("POST", "/v2/models/held/infer", json.dumps({"inputs": [tensor]}))
        server.held()
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        idle.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        server.on_loop(server.front_end.close)
        assert idle.recv(4096) == b""
        server.on_loop(server.dataplane.release)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_metrics_have_a_door_of_their_own():
    with running(lambda plane: front_end.start_metrics(plane, port=0)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        for path, status in (("/metrics", 200), ("/metrics/x", 404), ("/v2", 404)):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == status
            assert (b"nv_inference_count 3" in body) == (status == 200)
        connection.request("POST", "/metrics")
        assert connection.getresponse().status == 405


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
         str(key), "-out", str(certificate), "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with running(lambda plane: front_end.start(plane, Address("127.0.0.1", 0, context))) as server:
        connection = http.client.HTTPSConnection(
            "localhost", server.port, timeout=10, context=trusting
        )
        tensor = {"name": "INPUT", "datatype": "FP32", "shape": [150_528], "data": [0.5] * 150_528}
        for _ in range(2):
            body = json.dumps({"inputs": [tensor]})
            connection.request("POST", "/v2/models/identity/infer", body)
            answer = json.loads(connection.getresponse().read())
            assert answer["outputs"][0]["data"] == tensor["data"]


def test_hundreds_of_idle_connections_are_no_burden():
    with running(lambda plane: front_end.start(plane, Address("127.0.0.1", 0))) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
        clients[-1].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert clients[-1].recv(4096).startswith(b"HTTP/1.1 200")
        for client in clients:
            client.close()
