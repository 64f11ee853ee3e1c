"""Several front ends: nobody can tell which process took a connection."""

import json
import re
import signal
import threading
import urllib.request
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from multiprocessing import shared_memory

import numpy as np
import psutil
import pytest

from tests.end_to_end.conftest import add_identity, serving
from tests.end_to_end.test_serve_life import wait_until

http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")
from tritonclient.utils import InferenceServerException  # noqa: E402

# That all of them reach the same process has the odds 1 : 2^15.
CONNECTIONS = 16
COUNTER = """
import numpy as np

class Model:
    def __init__(self, parameters):
        self.calls = 0

    def run(self, inputs):
        self.calls += 1
        return {"y": np.array([self.calls], np.int64)}
"""
COUNTER_CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_INT64 dims: [ 1 ] }
parameters { key: "idempotent" value: { string_value: "false" } }
"""


@pytest.fixture
def repository(tmp_path):
    add_identity(tmp_path, "echo")
    delay = 'parameters { key: "execute_delay_ms" value: { string_value: "400" } }'
    add_identity(tmp_path, "slow", extra=delay)
    (tmp_path / "count" / "1").mkdir(parents=True)
    (tmp_path / "count" / "1" / "model.py").write_text(COUNTER)
    (tmp_path / "count" / "config.pbtxt").write_text(COUNTER_CONFIG)
    return tmp_path


class Http:
    """A client with a connection of its own."""

    of = "http"
    module = http

    def __init__(self, server):
        self.client = http.InferenceServerClient(server.url("http"))

    def statistics(self, model):
        return self.client.get_inference_statistics(model)["model_stats"][0]


class Grpc:
    """The same over gRPC."""

    of = "grpc"
    module = grpc

    def __init__(self, server):
        own = [("grpc.use_local_subchannel_pool", 1)]
        self.client = grpc.InferenceServerClient(server.url("grpc"), channel_args=own)

    def statistics(self, model):
        found = self.client.get_inference_statistics(model, as_json=True)["model_stats"][0]
        return {**found, "inference_count": int(found["inference_count"])}


class Clients(ExitStack):
    """Many connections of both protocols."""

    def __init__(self, server, kinds=(Http, Grpc)):
        super().__init__()
        self.all = [kind(server) for kind in kinds for _ in range(CONNECTIONS)]
        for each in self.all:
            self.callback(each.client.close)


def infer(client, model, x):
    x = np.asarray(x, np.float32)
    tensor = client.module.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return client.client.infer(model, [tensor]).as_numpy("y")


def metric(server, name):
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics", timeout=10) as page:
        text = page.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name} (\S+)$", text, re.MULTILINE))


ANSWERED = r'tuili_front_end_inferences{front_end="1"}'


def test_answers_and_counts_do_not_depend_on_who_took_the_connection(repository):
    with serving(repository, "--frontends", "2") as server, Clients(server) as clients:
        for number, client in enumerate(clients.all):
            assert infer(client, "echo", [[number, -1]]).tolist() == [[number, -1]]
        # A model with a state is one model, wherever it is asked.
        counted = [int(infer(client, "count", [0])[0]) for client in clients.all]
        assert counted == list(range(1, len(counted) + 1))
        for client in (clients.all[0], clients.all[-1]):
            for model in ("echo", "count"):
                assert client.statistics(model)["inference_count"] == len(clients.all)
        name = r'nv_inference_request_success{model="echo",version="1"}'
        assert metric(server, name) == len(clients.all)
        assert 0 < metric(server, ANSWERED) < len(clients.all)
        for client in clients.all:
            with pytest.raises(InferenceServerException, match="unknown model: 'nobody'"):
                infer(client, "nobody", [0])


def test_everybody_has_what_was_registered_and_set_anywhere(repository):
    memory = shared_memory.SharedMemory(create=True, size=8)
    np.ndarray((1, 2), np.float32, memory.buf)[:] = 7, 8
    options = ("--frontends", "2", "--allow-client-shm")
    try:
        with serving(repository, *options) as server, Clients(server) as clients:
            clients.all[0].client.register_system_shared_memory("r", f"/{memory.name}", 8)
            for client in clients.all:
                tensor = client.module.InferInput("x", [1, 2], "FP32")
                tensor.set_shared_memory("r", 8)
                assert client.client.infer("echo", [tensor]).as_numpy("y").tolist() == [[7, 8]]
            clients.all[1].client.update_trace_settings("echo", {"trace_rate": "7"})
            for client in clients.all:
                settings = client.client.get_trace_settings("echo")
                assert "7" in str(settings if client.of == "grpc" else settings["trace_rate"])
    finally:
        memory.close()
        memory.unlink()


def test_a_load_or_unload_is_done_everywhere_before_it_is_answered(repository):
    options = ("--frontends", "2", "--model-control-mode", "explicit", "--load-model", "echo")
    with serving(repository, *options) as server, Clients(server) as clients:
        for client in clients.all * 2:  # until front ends answer by themselves
            infer(client, "echo", [[1, 2]])
        for dims in (3, 2, 5):
            wider = {
                "backend": "identity",
                "max_batch_size": 8,
                "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [dims]}],
                "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [dims]}],
            }
            clients.all[dims].client.load_model("echo", config=json.dumps(wider))
            for client in clients.all:
                assert infer(client, "echo", [range(dims)]).tolist() == [[*range(dims)]]
        clients.all[-1].client.unload_model("echo")
        for client in clients.all:
            with pytest.raises(InferenceServerException, match="'echo' has no available versions"):
                infer(client, "echo", [[1, 2]])


def front_ends(server):
    """The processes that take connections beside the server."""
    children = psutil.Process(server.process.pid).children()
    return [each for each in children if "tuili.server.frontends.main" in each.cmdline()]


def test_a_front_end_that_dies_is_started_again_and_the_others_go_on(repository):
    with serving(repository, "--frontends", "3") as server:
        first, second = front_ends(server)
        first.kill()
        for _ in range(CONNECTIONS):
            wait_until(lambda: ask_once(server) == [[1, 2]])
        wait_until(lambda: len(front_ends(server)) == 2)
        assert second in front_ends(server)
        # Once more as it starts, before it listens.
        (again,) = (each for each in front_ends(server) if each != second)
        again.kill()
        wait_until(lambda: metric(server, r"tuili_front_end_deaths{\S+}") == 2)
        wait_until(lambda: metric(server, r"tuili_front_end_up{\S+}") == 2)

        def answers_again():
            ask_once(server)
            return all(
                metric(server, f'tuili_front_end_inferences{{front_end="{at}"}}') for at in (1, 2)
            )

        wait_until(answers_again)


def ask_once(server):
    """An answer over a new connection; none when its process died meanwhile."""
    connection = HTTPConnection(server.url("http"), timeout=20)
    try:
        return ask(connection, "echo", [[1, 2]])
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def ask(connection, model, x):
    """An answer in JSON."""
    entry = {"name": "x", "datatype": "FP32", "shape": np.shape(x), "data": x}
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [entry]}))
    (output,) = json.loads(connection.getresponse().read())["outputs"]
    return np.reshape(output["data"], output["shape"]).tolist()


def test_sigterm_answers_what_is_in_flight_in_every_process(repository):
    # Those that are still on their way at the signal are taken for another second.
    with serving(repository, "--frontends", "2", "--drain-delay", "1") as server:
        connections = [HTTPConnection(server.url("http"), timeout=30) for _ in range(CONNECTIONS)]
        for each in connections:
            assert ask(each, "echo", [[0, 0]]) == [[0, 0]]
        found = []
        threads = [
            threading.Thread(target=lambda each=each: found.append(ask(each, "slow", [[3, 4]])))
            for each in connections
        ]
        for thread in threads:
            thread.start()
        arrived = r'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_until(lambda: metric(server, arrived) >= 1)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert server.process.wait(30) == 0
        assert found == [[[3, 4]]] * CONNECTIONS


def test_streams_go_through_every_front_end(repository):
    with serving(repository, "--frontends", "2") as server, Clients(server, (Grpc,)) as clients:
        for client in clients.all:
            answers, done = [], threading.Event()

            def take(result, error, answers=answers, done=done):
                answers.append(error or result.as_numpy("y").tolist())
                if len(answers) == 3:
                    done.set()

            client.client.start_stream(take)
            for number in range(3):
                tensor = grpc.InferInput("x", [1, 2], "FP32")
                tensor.set_data_from_numpy(np.full((1, 2), number, np.float32))
                client.client.async_stream_infer("echo", [tensor])
            assert done.wait(20)
            client.client.stop_stream()
            assert answers == [[[0, 0]], [[1, 1]], [[2, 2]]]
