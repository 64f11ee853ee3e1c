"""What clients and operators may do to a running server without harm to anybody else."""

import http.client
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving
from tuili.bench.load.answers import Expectation
from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Log, Verdict
from tuili.bench.load.levels import connector
from tuili.bench.load.payloads import Question, exchange
from tuili.bench.load.sockets import Target
from tuili.errors import Unavailable

X = np.arange(16, dtype=np.float32).reshape(1, 16)
IDLE = 3000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    add_identity(repository, "small", dims="16")
    # As many shells start it: with room for few connections unless it asks for more.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    try:
        with serving(repository) as found:
            yield found
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def requests(target, count):
    return [
        exchange(target, Question("small"), {"x": X}, Expectation({"y": X})) for _ in range(count)
    ]


def answered(server, protocol, count=20):
    """Whether so many requests are answered, and rightly."""
    log, target = Log(), Target(protocol, "127.0.0.1", server.ports[protocol])
    driver = Driver(connector(target, 1), requests(target, 5), log)
    driver.closed(4)
    until = time.perf_counter() + 30
    while len(log.done) < count and time.perf_counter() < until:
        driver.run(time.perf_counter() + 0.01)
    driver.drain(10.0)
    driver.close()
    return len(log.done) >= count and set(log.verdicts) == {Verdict.GOOD}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_thousands_of_idle_connections_cost_nobody_an_answer(server, protocol):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 200:
        pytest.skip(f"the system allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = [socket.create_connection(("127.0.0.1", server.ports[protocol])) for _ in range(IDLE)]
    try:
        assert answered(server, protocol)
    finally:
        for each in idle:
            each.close()
    assert answered(server, protocol)


HEAD = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RUDE = {
    "half a head": ("http", HEAD[:20]),
    "a head without its body": ("http", HEAD),
    "a body that dribbles": ("http", HEAD + b"{"),
    "half a preface": ("grpc", PREFACE[:10]),
    "a preface and silence": ("grpc", PREFACE),
    "another protocol": ("grpc", HEAD),
    "noise": ("http", bytes(range(256))),
}


@pytest.mark.parametrize(("protocol", "data"), RUDE.values(), ids=RUDE.keys())
@pytest.mark.parametrize("ending", ["stays", "half-closes", "resets"])
def test_rude_clients_harm_only_themselves(server, protocol, data, ending):
    rude = []
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", server.ports[protocol]))
        client.sendall(data)
        if ending == "half-closes":
            client.shutdown(socket.SHUT_WR)
        elif ending == "resets":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.close()
        rude.append(client)
    assert answered(server, protocol)
    for client in rude:
        client.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sigterm_under_load_loses_no_request(tmp_path, protocol):
    add_identity(tmp_path, "small", dims="16")
    with serving(tmp_path) as server:
        target, log = Target(protocol, "127.0.0.1", server.ports[protocol]), Log()
        driver = Driver(connector(target, 1), requests(target, 9), log)
        driver.closed(8)
        until = time.perf_counter() + 30
        while len(log.done) < 50 and time.perf_counter() < until:
            driver.run(time.perf_counter() + 0.01)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(Unavailable, match="no server at"):
            driver.run(time.perf_counter() + 30)
        driver.close()
        assert server.process.wait(30) == 0
    counts = Counter(log.verdicts)
    assert counts[Verdict.GOOD] >= 50
    assert counts[Verdict.WRONG] == counts[Verdict.LOST] == 0, log.texts


def test_readiness_is_false_before_requests_are_refused(tmp_path):
    add_identity(tmp_path, "small", dims="16")
    with serving(tmp_path, "--drain-delay=1") as server:
        connection = http.client.HTTPConnection(server.url("http"), timeout=10)

        def ready():
            connection.request("GET", "/v2/health/ready")
            answer = connection.getresponse()
            answer.read()
            return answer.status == 200

        assert ready()
        server.process.send_signal(signal.SIGTERM)
        while ready():
            pass
        assert answered(server, "http")
        assert answered(server, "grpc")
        connection.close()
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_memory_that_its_client_takes_away_harms_only_that_client(tmp_path, protocol):
    library = pytest.importorskip(f"tritonclient.{protocol}")
    errors = pytest.importorskip("tritonclient.utils")
    delay = 'parameters { key: "execute_delay_ms" value: { string_value: "100" } }'
    add_identity(tmp_path, "slow", dims="100000", extra=delay)
    add_identity(tmp_path, "small", dims="16")
    memory = Path(f"/dev/shm/tuili-taken-{protocol}")
    size = 400_000
    memory.write_bytes(bytes(2 * size))
    try:
        with (
            serving(tmp_path, "--allow-client-shm") as server,
            library.InferenceServerClient(server.url(protocol)) as client,
        ):
            client.register_system_shared_memory("taken", f"/{memory.name}", 2 * size)
            tensor = library.InferInput("x", [1, 100_000], "FP32")
            tensor.set_shared_memory("taken", size)
            output = library.InferRequestedOutput("y")
            output.set_shared_memory("taken", size, offset=size)
            failed = []

            def ask():
                # A client belongs to its thread.
                with library.InferenceServerClient(server.url(protocol)) as own:
                    with pytest.raises(errors.InferenceServerException) as caught:
                        own.infer("slow", [tensor], outputs=[output])
                    failed.append(str(caught.value))

            asking = threading.Thread(target=ask)
            asking.start()
            threading.Event().wait(0.05)
            os.truncate(memory, 0)
            asking.join(20)
            ask()
            assert len(failed) == 2
            assert all("was truncated by its owner" in text for text in failed), failed
            assert answered(server, protocol)
    finally:
        memory.unlink()
