"""The life of a server: start-up errors, drain on SIGTERM, polling, client shared memory."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving

http = pytest.importorskip("tritonclient.http")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

# A run waits until the test lets it through; with the gate gone none does.
GATED = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        try:
            open({gate!r}).read()
        except FileNotFoundError:
            pass
        return {{"y": inputs["x"]}}
"""


def add_gated(repository, name):
    """A model that runs one request at a time, behind the gate that is returned.

    Who opens the gate to write waits until a request runs; closing it lets that one through.
    """
    repository.mkdir(exist_ok=True)
    gate = repository.parent / f"{repository.name}-{name}-gate"
    os.mkfifo(gate)
    one = 'backend: "python" instance_group { count: 1 }'
    add_identity(repository, name, batch=1, extra=one)
    config = repository / name / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "identity"', ""))
    (repository / name / "1" / "model.py").write_text(GATED.format(gate=str(gate)))
    return gate


@contextmanager
def all_waiting(server, name, gate, asking):
    """Requests of which one runs and all others wait; at the end they are let through."""
    asking = [threading.Thread(target=each) for each in asking]
    for thread in asking:
        thread.start()
    with gate.open("w"):
        wait_until(lambda: waiting(server, name) == len(asking) - 1)
        yield
        gate.unlink()
    for thread in asking:
        thread.join(20)


def infer(client, model, value=1.0):
    x = np.full((1, 2), value, np.float32)
    tensor = http.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return client.infer(model, [tensor]).as_numpy("y")


def wait_until(condition, seconds=20.0):
    """Ask again and again; waiting for another process has no other way."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"


def is_ready(server):
    with suppress(OSError):
        urllib.request.urlopen(f"http://{server.url('http')}/v2/health/ready").close()
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_to_end_wait_for_what_is_in_flight(tmp_path, number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("started by nohup, or as by it")
    gate, found = add_gated(tmp_path / "models", "slow"), []
    with serving(tmp_path / "models") as server:

        def ask():
            with http.InferenceServerClient(server.url("http")) as client:
                found.append(infer(client, "slow", 5.0))

        with all_waiting(server, "slow", gate, [ask]):
            server.process.send_signal(number)
            wait_until(lambda: not is_ready(server))
        assert server.process.wait(20) == 0
    np.testing.assert_array_equal(found, np.full((1, 1, 2), 5.0))


@pytest.mark.parametrize("transport", ["http", "grpc"])
@pytest.mark.parametrize("front_ends", ["1", "2"])
def test_whoever_is_not_answered_in_time_is_told_so(tmp_path, transport, front_ends):
    library = pytest.importorskip(f"tritonclient.{transport}")
    gate, found = add_gated(tmp_path / "models", "slow"), []

    def ask():
        tensor = library.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        with (
            library.InferenceServerClient(server.url(transport)) as client,
            pytest.raises(InferenceServerException) as caught,
        ):
            client.infer("slow", [tensor])
        found.append(caught.value)

    with (
        serving(tmp_path / "models", "--exit-timeout=0.2", f"--frontends={front_ends}") as server,
        all_waiting(server, "slow", gate, [ask] * 4),
    ):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 1
    assert len(found) == 4
    assert all("waits no longer for this request" in each.message() for each in found)
    assert {each.status() for each in found} == {
        "503" if transport == "http" else "StatusCode.UNAVAILABLE"
    }


def test_a_signal_while_a_model_loads_names_it_and_spares_what_is_in_flight(tmp_path):
    repository, found = tmp_path / "models", []
    gate = add_gated(repository, "slow")
    never = add_gated(repository, "stuck")
    (repository / "stuck" / "1" / "model.py").write_text(f"open({str(never)!r})\n")
    ports = dict(zip(("http", "metrics"), free_ports(2), strict=True))
    command = [sys.executable, "-m", "tuili", "serve", str(repository), "--grpc-port=-1"]
    command += [f"--{name}-port={port}" for name, port in ports.items()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server = SimpleNamespace(url=lambda name: f"127.0.0.1:{ports[name]}")

    def ask():
        with http.InferenceServerClient(server.url("http")) as client:
            found.append(infer(client, "slow"))

    try:
        wait_until(lambda: states(server) == {"slow": "READY", "stuck": "LOADING"})
        with all_waiting(server, "slow", gate, [ask] * 2):
            process.terminate()
            wait_until(lambda: not is_ready(server))
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert len(found) == 2
    assert process.returncode == 0
    assert "stopped while models were loading: stuck" in said


def free_ports(count):
    """Ports that nothing has."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def states(server):
    """The state of each model that has one, while a server may not be there yet."""
    request = urllib.request.Request(
        f"http://{server.url('http')}/v2/repository/index", method="POST"
    )
    try:
        with urllib.request.urlopen(request) as page:
            return {each["name"]: each.get("state", "") for each in json.load(page)}
    except urllib.error.URLError:
        return {}


def waiting(server, model):
    """How many requests wait behind those that run."""
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics") as page:
        found = re.search(f'pending_request_count{{model="{model}".*}} (.*)', page.read().decode())
    return int(found[1]) if found else 0


def test_a_model_that_does_not_load_is_named_with_its_cause(tmp_path):
    add_identity(tmp_path, "good")
    add_identity(tmp_path, "bad", extra="nonsense: 1")
    command = [sys.executable, "-m", "tuili", "serve", str(tmp_path), "--http-port=0"]
    done = subprocess.run(
        [*command, "--grpc-port=-1", "--metrics-port=-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "1 model(s) failed to load" in done.stderr
    assert "bad: " in done.stderr
    assert "ModelConfig has no field 'nonsense'" in done.stderr


def test_without_exit_on_error_the_good_ones_serve_and_readiness_is_false(tmp_path):
    add_identity(tmp_path, "good")
    add_identity(tmp_path, "bad", extra="nonsense: 1")
    with serving(tmp_path, "--no-exit-on-error") as server:
        assert server.models == ["good"]
        with http.InferenceServerClient(server.url("http")) as client:
            assert not client.is_server_ready()
            assert client.is_model_ready("good")
            np.testing.assert_array_equal(infer(client, "good"), np.ones((1, 2)))


def test_poll_mode_follows_the_folder(tmp_path):
    add_identity(tmp_path, "one")
    with (
        serving(tmp_path, "--model-control-mode=poll", "--poll-interval=0.05") as server,
        http.InferenceServerClient(server.url("http")) as client,
    ):
        add_identity(tmp_path, "two")
        wait_until(lambda: client.is_model_ready("two"))
        (tmp_path / "one" / "1").rmdir()
        (tmp_path / "one" / "config.pbtxt").unlink()
        (tmp_path / "one").rmdir()
        wait_until(lambda: not client.is_model_ready("one"))


def test_a_port_that_is_taken(tmp_path):
    add_identity(tmp_path, "m")
    with serving(tmp_path) as server:
        command = [sys.executable, "-m", "tuili", "serve", str(tmp_path), "--grpc-port=-1"]
        done = subprocess.run(
            [*command, "--metrics-port=-1", f"--http-port={server.ports['http']}"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "choose another with --http-port" in done.stderr


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_client_shared_memory(tmp_path, transport):
    library = pytest.importorskip(f"tritonclient.{transport}")
    shm = pytest.importorskip("tritonclient.utils.shared_memory")
    add_identity(tmp_path, "m", dims="1000")
    x = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    with (
        serving(tmp_path, "--allow-client-shm") as server,
        library.InferenceServerClient(server.url(transport)) as client,
    ):
        handle = shm.create_shared_memory_region("data", f"/tuili-{transport}", x.nbytes * 2)
        try:
            shm.set_shared_memory_region(handle, [x])
            client.register_system_shared_memory("data", f"/tuili-{transport}", x.nbytes * 2)
            tensor = library.InferInput("x", list(x.shape), "FP32")
            tensor.set_shared_memory("data", x.nbytes)
            output = library.InferRequestedOutput("y")
            output.set_shared_memory("data", x.nbytes, offset=x.nbytes)
            client.infer("m", [tensor], outputs=[output])
            found = shm.get_contents_as_numpy(handle, np.float32, x.shape, x.nbytes)
            np.testing.assert_array_equal(found, x)
            client.unregister_system_shared_memory("data")
        finally:
            shm.destroy_shared_memory_region(handle)


@pytest.mark.parametrize(
    "options",
    [
        ("--model-control-mode=poll", "--poll-interval=0.05"),
        ("--model-control-mode=events", "--poll-interval=600"),  # only events can tell in time
    ],
    ids=["poll", "events"],
)
def test_a_version_that_is_being_copied_is_served_when_it_is_whole(tmp_path, options):
    repository = tmp_path / "repository"
    add_identity(repository, "one")
    with (
        serving(repository, *options, "--settle=0.5") as server,
        http.InferenceServerClient(server.url("http")) as client,
    ):
        half = repository / "one" / "2"
        half.mkdir()

        def reason():
            index = client.get_model_repository_index()
            return next((each.get("reason", "") for each in index if each["version"] == "2"), "")

        with (half / "weights.bin").open("wb") as copy:
            copy.write(b"half")
            copy.flush()
            wait_until(lambda: "a process is writing 'weights.bin'" in reason())
            assert client.is_model_ready("one", "1")
            assert not client.is_model_ready("one", "2")
        wait_until(lambda: client.is_model_ready("one", "2"))


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_stock_clients_find_models_that_are_loaded_on_demand(tmp_path, transport):
    library = pytest.importorskip(f"tritonclient.{transport}")
    for name in ("one", "two"):
        add_identity(tmp_path, name)
        (tmp_path / name / "1" / "weights.bin").write_bytes(bytes(3 << 20))
    with (
        serving(tmp_path, "--model-control-mode=demand", "--memory-budget-mb=4") as server,
        library.InferenceServerClient(server.url(transport)) as client,
    ):
        assert server.models == ["none"]
        assert client.is_server_ready()
        for name in ("one", "two", "one"):
            assert client.is_model_ready(name)
            metadata = client.get_model_metadata(name)
            assert (metadata["name"] if transport == "http" else metadata.name) == name
            x = np.ones((1, 2), np.float32)
            tensor = library.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(x)
            np.testing.assert_array_equal(client.infer(name, [tensor]).as_numpy("y"), x)
        with pytest.raises(library.InferenceServerException, match="unknown model: 'three'"):
            client.get_model_metadata("three")
