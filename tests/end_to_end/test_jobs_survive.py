"""A server that is killed: the next one on its folder has its jobs, at all front ends."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress

import pytest

from tests.end_to_end.conftest import add_identity, serving
from tests.end_to_end.test_serve_life import wait_until
from tests.server.test_webhooks import receiver

# Waits for ever, unless the file is there.
WAITS = """
import os

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        if not os.path.exists({go!r}):
            open({gate!r}).read()
        return {{"y": inputs["x"] + 1}}
"""
CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "models"
    add_identity(folder, "echo", batch=0, dims="1")
    (folder / "waits" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "gate")
    text = WAITS.format(go=str(tmp_path / "go"), gate=str(tmp_path / "gate"))
    (folder / "waits" / "1" / "model.py").write_text(text)
    (folder / "waits" / "config.pbtxt").write_text(CONFIG)
    return folder


def let_go(gate):
    """Whether there was a model that waited, and does so no more."""
    with suppress(OSError):
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        return True
    return False


def ask(server, path, body=None, headers=None):
    """Status and JSON, over a connection of its own."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://{server.url('http')}{path}", data, headers or {})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return answer.status, json.load(answer)


def submit(server, model, x, headers=None):
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [x]}]}
    status, job = ask(server, f"/v2/models/{model}/jobs", body, headers)
    assert status == 202
    return job["id"]


def result(server, id_):
    status, answer = ask(server, f"/v2/jobs/{id_}/result")
    return answer["outputs"][0]["data"] if status == 200 else None


def test_jobs_and_webhooks_outlive_a_server_that_is_killed(tmp_path, repository):
    key = {"Idempotency-Key": "order 7"}
    with receiver(500) as (url, got):
        options = (
            "--jobs-dir", str(tmp_path / "jobs"), "--frontends", "2", "--allow-webhook", url,
            "--isolation", "process",
        )  # fmt: skip
        with serving(repository, *options) as server:
            done = submit(server, "echo", 5, {"Tuili-Webhook": url + "/hook"})
            wait_until(lambda: result(server, done) == [5])
            wait_until(lambda: got)  # and was not taken
            left = submit(server, "waits", 6, key)
            assert {submit(server, "waits", 6, key) for _ in range(8)} == {left}
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            wait_until(lambda: let_go(tmp_path / "gate"))
        (tmp_path / "go").touch()
        with serving(repository, *options) as server:
            assert [result(server, done) for _ in range(8)] == [[5]] * 8
            assert submit(server, "waits", 6, key) == left
            wait_until(lambda: result(server, left) == [7])
            wait_until(lambda: len(got) >= 2)
            assert {(path, job) for path, job, _ in got} == {("/hook", done)}
            command = [sys.executable, "-m", "tuili", "serve", str(repository), *options[:2]]
            ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
            again = subprocess.run([*command, *ports], capture_output=True, text=True, check=False)
            assert again.returncode == 1
            assert "is in use by another server" in again.stderr


def test_a_server_that_is_stopped_leaves_what_it_could_not_answer(tmp_path, repository):
    options = ("--jobs-dir", str(tmp_path / "jobs"), "--exit-timeout", "0")
    with serving(repository, *options) as server:
        left = submit(server, "waits", 1)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
    (tmp_path / "go").touch()
    with serving(repository, *options) as server:
        wait_until(lambda: result(server, left) == [2])
