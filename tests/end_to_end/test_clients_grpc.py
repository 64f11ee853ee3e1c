"""Unmodified gRPC clients against both gRPC front ends over a fake data plane."""

from __future__ import annotations

import asyncio
import queue
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest

from tests.server.running import Running, running
from tuili.server import grpc as front_end
from tuili.server.listening import Address

grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
from tritonclient.grpc import aio  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

BIG = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
HUGE = np.zeros(20 << 20, np.uint8)


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(
        lambda plane: front_end.start(plane, Address("127.0.0.1", 0), grpc_impl=request.param)
    ) as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as found:
        yield found


def pair() -> list[Any]:
    inputs = [triton.InferInput(f"INPUT{index}", [1, 16], "INT32") for index in range(2)]
    inputs[0].set_data_from_numpy(np.arange(16, dtype=np.int32).reshape(1, 16))
    inputs[1].set_data_from_numpy(np.full((1, 16), 2, np.int32))
    return inputs


def one(array: np.ndarray[Any, Any], datatype: str, name: str = "INPUT") -> list[Any]:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def test_health_and_metadata(client: Any):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata().name == "tuili"
    assert list(client.get_model_metadata("simple").inputs[0].shape) == [-1, 16]
    config = client.get_model_config("simple").config
    assert (config.max_batch_size, config.input[0].data_type) == (8, 8)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    statistics = client.get_inference_statistics("simple").model_stats[0]
    assert (statistics.inference_count, statistics.inference_stats.success.ns) == (3, 4500)
    with pytest.raises(InferenceServerException, match="'nope' is not available") as caught:
        client.get_inference_statistics("nope")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="specified version string 'abc'"):
        client.is_model_ready("simple", "abc")


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_inference(client: Any, coding: str | None):
    outputs = [triton.InferRequestedOutput(name) for name in ("OUTPUT1", "OUTPUT0")]
    result = client.infer(
        "simple",
        pair(),
        outputs=outputs,
        request_id="7",
        compression_algorithm=coding,
        client_timeout=10,
        parameters={"mine": 1},
    )
    assert result.get_response().id == "7"
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT1", "OUTPUT0"]
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0")[0], np.arange(16) + 2)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1")[0], np.arange(16) - 2)


def test_text_and_empty_tensors(client: Any):
    data = np.array([["abc", "é"], ["", "\0"]], object)
    found = client.infer("identity", one(data, "BYTES")).as_numpy("OUTPUT")
    assert [item.decode() for item in found.reshape(-1)] == data.reshape(-1).tolist()
    empty = np.empty((0, 4), np.float32)
    assert client.infer("identity", one(empty, "FP32")).as_numpy("OUTPUT").shape == (0, 4)


@pytest.mark.parametrize("model", ["identity", "later"])
def test_large_tensors(client: Any, model: str):
    for array, datatype in ((BIG, "FP32"), (HUGE, "UINT8"), (BIG, "FP32")):
        result = client.infer(model, one(array, datatype))
        np.testing.assert_array_equal(result.as_numpy("OUTPUT"), array)


@pytest.mark.parametrize(
    ("model", "status", "text"),
    [
        ("nope", "NOT_FOUND", "unknown model: 'nope' is not found"),
        ("busy", "UNAVAILABLE", "Exceeds maximum queue size"),
        ("bug", "INTERNAL", "something broke"),
    ],
)
def test_errors_reach_the_client(client: Any, model: str, status: str, text: str):
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.infer(model, one(BIG[..., 0], "FP32"))
    assert caught.value.status() == f"StatusCode.{status}"


def test_a_timeout_cancels_the_request(client: Any, server: Running):
    for timeout_s in (0.1, 1, 10):  # until it is long enough for the request to arrive
        with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
            client.infer("held", pair(), client_timeout=timeout_s)
        if server.dataplane.held:
            break
    ticket, request, _ = server.dataplane.held[-1]
    assert request.deadline is not None
    assert server.until(lambda: ticket.cancelled)
    server.on_loop(server.dataplane.release)


def test_a_cancelled_call_cancels_the_request(client: Any, server: Running):
    answers: queue.Queue[Any] = queue.Queue()
    call = client.async_infer("held", pair(), lambda result, error: answers.put(error))
    ticket = server.held()
    call.cancel()
    assert "CANCELLED" in str(answers.get(timeout=10))
    assert server.until(lambda: ticket.cancelled)
    server.on_loop(server.dataplane.release)


def test_models_are_loaded_and_listed(client: Any, server: Running):
    client.load_model("m", config="{}", files={"file:1/model.bin": b"\x00\x01"})
    client.unload_model("m", unload_dependents=True)
    assert server.dataplane.loaded[-1] == ("m", {"config": "{}", "file:1/model.bin": b"\x00\x01"})
    assert server.dataplane.unloaded[-1] == ("m", True)
    assert client.get_model_repository_index().models[0].state == "READY"
    with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
        client.load_model("missing")


def test_regions_and_settings(client: Any):
    client.register_system_shared_memory("r", "/k", 64, offset=8)
    regions = client.get_system_shared_memory_status("r").regions
    assert (regions["r"].key, regions["r"].offset, regions["r"].byte_size) == ("/k", 8, 64)
    client.unregister_system_shared_memory("r")
    assert not client.get_system_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="not supported"):
        client.register_cuda_shared_memory("c", b"AAAA", 0, 8)
    settings = client.update_trace_settings(settings={"trace_rate": "5", "trace_level": ["OFF"]})
    assert list(settings.settings["trace_rate"].value) == ["5"]
    assert list(client.get_trace_settings("simple").settings["trace_level"].value) == ["OFF"]
    log = client.update_log_settings({"log_verbose_level": 1}).settings
    assert (log["log_verbose_level"].uint32_param, log["log_info"].bool_param) == (1, True)
    with pytest.raises(InferenceServerException, match="can not be updated"):
        client.update_log_settings({"log_file": "/x"})


def test_a_stream(client: Any):
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    count = one(np.array([3], np.int32), "INT32", "IN")
    client.async_stream_infer("repeat", count, request_id="r")
    for index in range(3):
        result, error = answers.get(timeout=10)
        assert error is None
        assert result.as_numpy("OUT").tolist() == [index]
        final = result.get_response().parameters["triton_final_response"].bool_param
        assert final == (index == 2)
    for ident in "ab":
        client.async_stream_infer("later", one(BIG, "FP32"), request_id=ident)
    for ident in "ab":
        result, error = answers.get(timeout=10)
        assert result.get_response().id == ident
        np.testing.assert_array_equal(result.as_numpy("OUTPUT"), BIG)
    client.async_stream_infer("nope", pair())
    result, error = answers.get(timeout=10)
    assert "unknown model" in str(error)
    none = one(np.array([0], np.int32), "INT32", "IN")
    client.async_stream_infer("repeat", none, request_id="e", enable_empty_final_response=True)
    result, error = answers.get(timeout=10)
    assert (result.get_response().id, len(result.get_response().outputs)) == ("e", 0)
    client.stop_stream()


def test_a_strict_stream_ends_with_its_first_error(client: Any):
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(
        lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"}
    )
    client.async_stream_infer("nope", pair())
    _, error = answers.get(timeout=10)
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream()


def test_many_clients_at_once_get_their_own_answers(server: Running):
    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            for _ in range(20):
                array = rng.random((1, int(rng.integers(1, 30_000))), dtype=np.float32)
                result = client.infer("later", one(array, "FP32"), request_id=str(seed))
                same = np.array_equal(result.as_numpy("OUTPUT"), array)
                if not same or result.get_response().id != str(seed):
                    return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_asynchronous_client(server: Running):
    async def requests() -> Any:
        for ident in "xyz":
            yield {"model_name": "simple", "inputs": pair(), "request_id": ident}

    async def scenario() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(client.infer("simple", pair()) for _ in range(40)))
            for result in results:
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0")[0], np.arange(16) + 2)
            idents = [
                result.get_response().id
                async for result, error in client.stream_infer(requests())
                if error is None
            ]
            assert idents == ["x", "y", "z"]
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nope", pair())

    asyncio.run(scenario())


def test_an_unknown_method_is_unimplemented(server: Running):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/Nope")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("size", [100_000, 400_000, 3_000_000])
def test_metadata_that_are_too_large_end_their_call_only(server: Running, size: int):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"),
            (":authority", "a"), ("te", "trailers"), ("content-type", "application/grpc"),
        ]  # fmt: skip
        client.encoder.encode = partial(client.encoder.encode, huffman=False)
        found: dict[int, list[str]] = {}
        for number, more in ((1, []), (3, [("x", "v" * size)]), (5, []), (7, [])):
            client.send_headers(number, fields + more)
            client.send_data(number, bytes(5), end_stream=True)
            connection.sendall(client.data_to_send())
            found[number] = _status(client, connection, number)
        assert found == {1: ["0"], 3: ["8"], 5: ["0"], 7: ["0"]}


def _status(client: Any, connection: socket.socket, number: int) -> list[str]:
    """The status of a stream that ends."""
    status: list[str] = []
    while True:
        data = connection.recv(65536)
        assert data, "the connection has ended"
        for event in client.receive_data(data):
            if getattr(event, "stream_id", None) == number:
                fields = dict(getattr(event, "headers", ()))
                status += [fields["grpc-status"]] if "grpc-status" in fields else []
                if isinstance(event, h2.events.StreamEnded):
                    return status
        connection.sendall(client.data_to_send())


def test_the_health_service(server: Running):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"


def test_a_stopping_server_finishes_what_it_has(server: Running):
    impl = "grpcio" if "Grpcio" in type(server.front_end).__name__ else "native"
    with (
        running(
            lambda plane: front_end.start(plane, Address("127.0.0.1", 0), grpc_impl=impl)
        ) as other,
        triton.InferenceServerClient(f"127.0.0.1:{other.port}") as client,
    ):
        answers: queue.Queue[Any] = queue.Queue()
        client.async_infer("held", pair(), lambda result, error: answers.put((result, error)))
        other.held()
        other.on_loop(other.front_end.close)
        other.on_loop(other.dataplane.release)
        result, error = answers.get(timeout=10)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0")[0], np.arange(16))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls_with_alpn(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
         str(key), "-out", str(certificate), "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with (
        running(lambda plane: front_end.start(plane, Address("127.0.0.1", 0, context))) as server,
        triton.InferenceServerClient(
            f"localhost:{server.port}", ssl=True, root_certificates=str(certificate)
        ) as client,
    ):
        result = client.infer("identity", one(BIG, "FP32"))
        np.testing.assert_array_equal(result.as_numpy("OUTPUT"), BIG)
