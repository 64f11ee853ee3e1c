"""How to start each server and ask it: tuili, Triton (C++ and Python back ends), Python peers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import MODELS
from benchmarks.peers import install
from tuili.bench.load.exchange import Exchange, Wrong
from tuili.bench.load.levels import Load, Settings
from tuili.bench.load.payloads import Question
from tuili.bench.load.session import Session
from tuili.bench.load.sockets import Target
from tuili.errors import InvalidArgument, Unavailable

APPS = Path(__file__).parent / "apps"
START_S = 90.0
SMALL, BIG, ROW = (1, 16), (1, 3, 224, 224), (1, 64)


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the table."""

    model: str  # small, big, mlp, python
    protocol: str  # http, grpc, shm; json: numbers as text; http-ids, grpc-ids: ids that change
    concurrency: int

    def __str__(self) -> str:
        return f"{self.model} {self.protocol} c={self.concurrency}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test; `dialect` says how it is asked: v2, raw bytes or JSON of its own."""

    name: str
    models: tuple[str, ...]
    protocols: tuple[str, ...]
    start: Callable[[str, Path, int, int], tuple[list[str], dict[str, str]]]
    dialect: str = "v2"
    one_model: bool = False  # a process per model
    when_asked: bool = False  # only where it is named

    def serves(self, case: Case) -> bool:
        """Whether a case makes sense for it."""
        return case.model in self.models and case.protocol in self.protocols


def write_repository(folder: Path, flavour: str) -> Path:
    """A model repository in Triton's layout, for tuili and for Triton."""
    batching = "" if flavour in ("triton", "triton-python") else "dynamic_batching { }\n"
    for name, shape in (("small", SMALL), ("big", BIG)):
        version = folder / name / "1"
        version.mkdir(parents=True)
        tensor = f"data_type: TYPE_FP32 dims: {list(shape[1:])}"
        (version.parent / "config.pbtxt").write_text(
            'backend: "identity" max_batch_size: 64 instance_group [ { kind: KIND_CPU } ]\n'
            # To join large rows is only copying.
            + (batching if name == "small" else "")
            + f'input {{ name: "INPUT0" {tensor} }} output {{ name: "OUTPUT0" {tensor} }}\n'
        )
    version = folder / "mlp" / "1"
    version.mkdir(parents=True)
    shutil.copy(MODELS["digits_mlp"].path(), version / "model.onnx")
    extra = 'parameters { key: "isolation" value { string_value: "process" } }\n'
    (version.parent / "config.pbtxt").write_text(
        'backend: "onnxruntime" max_batch_size: 64 instance_group [ { kind: KIND_CPU } ]\n'
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
        + (extra if flavour == "tuili-host" else "")
        + batching
        + 'input { name: "X" data_type: TYPE_FP32 dims: [ 64 ] }\n'
        'output { name: "probabilities" data_type: TYPE_FP32 dims: [ 10 ] }\n'
    )
    version = folder / "python" / "1"
    version.mkdir(parents=True)
    shutil.copy(APPS / "triton_model.py", version / "model.py")
    (version.parent / "config.pbtxt").write_text(
        'backend: "python" max_batch_size: 64 instance_group [ { kind: KIND_CPU } ]\n' + batching +
        'input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }\n'
        'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] }\n'
    )  # fmt: skip
    return folder


def tuili(
    flavour: str, *more: str
) -> Callable[[str, Path, int, int], tuple[list[str], dict[str, str]]]:
    """`tuili serve`, every feature on, with `more` options."""

    def start(_: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
        repository = write_repository(folder, flavour)
        if flavour == "tuili":
            shutil.rmtree(repository / "python")
        ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", "0"]
        command = [sys.executable, "-m", "tuili", "serve", str(repository), *ports]
        return [*command, "--allow-client-shm", "--log-level", "warning", *more], {}

    return start


def triton(flavour: str) -> Callable[[str, Path, int, int], tuple[list[str], dict[str, str]]]:
    """Triton's binary with its C++ back ends (and its Python one)."""

    def start(_: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
        repository = write_repository(folder / "models", flavour)
        server, backends = install.tritonserver(), folder / "backends"
        shutil.copytree(server / "backends", backends)
        for each in ("identity", "onnxruntime"):
            (backends / each).symlink_to(install.native_backends() / each)
        stub = server / "python_backend_stubs/3.11/triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        site = next((install.ROOT / "triton/lib").glob("python3.*/site-packages"))
        model = repository / "python/1/model.py"
        model.write_text(f"import sys; sys.path.insert(0, {str(site)!r})\n" + model.read_text())
        # The Python and the C++ back ends in one process crash while loading.
        for each in ("small", "big", "mlp") if flavour == "triton-python" else ("python",):
            shutil.rmtree(repository / each)
        command = [
            str(server / "bin/tritonserver"), f"--model-repository={repository}",
            f"--backend-directory={backends}", "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1", f"--http-port={http}", f"--grpc-port={grpc}",
            "--allow-metrics=false", "--log-info=false", "--log-warning=false",
        ]  # fmt: skip
        home = Path(sys.base_prefix) / "lib"
        libraries = f"{site / 'nvidia_pytriton.libs'}:{home}"
        return command, {"LD_LIBRARY_PATH": libraries}

    return start


def app(name: str, *arguments: str) -> Callable[..., tuple[list[str], dict[str, str]]]:
    """A peer that is a script of ours in its environment."""

    def start(model: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
        told = {"CASE": model, "PORT": str(http), "GRPC_PORT": str(grpc)}
        given = [each.format(port=http) for each in arguments]
        script = APPS / f"{name}_{'model' if name == 'mlserver' else 'app'}.py"
        return [str(install.python(name)), str(script), *given], told

    return start


def mlserver(model: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
    """MLServer, workers off: its fastest setting on one core."""
    settings: dict[str, Any] = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": free_port(),
        "parallel_workers": 0, "debug": False, "load_models_at_startup": True,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    shutil.copy(APPS / "mlserver_model.py", folder)
    for name in ("small", "mlp"):
        (folder / name).mkdir()
        told = {
            "name": name, "implementation": "mlserver_model.Model",
            "inputs": [{
                "name": "INPUT0" if name == "small" else "X", "datatype": "FP32",
                "shape": [-1, 16 if name == "small" else 64],
            }],
        }  # fmt: skip
        (folder / name / "model-settings.json").write_text(json.dumps(told))
    command = [str(install.python("mlserver").parent / "mlserver"), "start", str(folder)]
    return command, {"PYTHONPATH": str(folder)}


def bentoml(model: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
    """BentoML."""
    command = [str(install.python("bentoml").parent / "bentoml"), "serve", "bentoml_app:Model"]
    return [*command, "--port", str(http), "--host", "127.0.0.1", "--working-dir", str(APPS)], {
        "CASE": model, "BENTOML_DO_NOT_TRACK": "True",
    }  # fmt: skip


ALL, WIRE = ("small", "big", "mlp"), ("http", "grpc")
MORE = ("shm", "json", "http-ids", "grpc-ids")
SERVERS = {
    server.name: server
    for server in (
        Server("tuili", ALL, (*WIRE, *MORE), tuili("tuili")),
        Server("tuili-host", ("mlp", "python"), WIRE, tuili("tuili-host")),
        Server("tuili-poll", ("small", "mlp"), WIRE, tuili("tuili", "--busy-poll-us", "200"),
               when_asked=True),
        Server("triton", ALL, (*WIRE, *MORE), triton("triton")),
        Server("triton-dyn", ("mlp", "small"), WIRE, triton("triton-dyn")),
        Server("triton-python", ("python",), WIRE, triton("triton-python")),
        Server("mosec", ("small", "mlp"), ("http",),
               app("mosec", "--port", "{port}", "--address", "127.0.0.1", "--log-level", "error"),
               "raw", one_model=True),
        Server("mlserver", ("small", "mlp"), WIRE, mlserver),
        Server("kserve", ("small", "mlp"), WIRE, app("kserve")),
        Server("litserve", ("small", "mlp"), ("http",), app("litserve"), "json", one_model=True),
        Server("bentoml", ("small", "mlp"), ("http",), bentoml, "bento", one_model=True),
    )
}  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass(slots=True)
class Started:
    """A server that answers."""

    server: Server
    process: subprocess.Popen[bytes]
    http: int
    grpc: int

    @contextmanager
    def load(self, case: Case, settings: Settings):
        """A load for a case."""
        settings = replace(settings, server_pid=self.process.pid)
        over_grpc = case.protocol.startswith("grpc")
        port = self.grpc if over_grpc else self.http
        target = Target("grpc" if over_grpc else "http", "127.0.0.1", port)
        if self.server.dialect != "v2":
            yield Load(target, settings, lambda count: foreign(self.server, target, case, count))
            return
        inputs, expected = question(case.model)
        as_json = case.protocol == "json" or (
            self.server.name == "mlserver" and case.protocol == "http"
        )
        with Session(
            target,
            Question(case.model, json_tensors=as_json, ids=case.protocol.endswith("-ids")),
            settings,
            inputs=inputs,
            expected=expected,
            shared=case.protocol == "shm",
        ) as session:
            yield session


def question(model: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs, and the outputs that are right: the input itself, or ONNX Runtime's answer."""
    rng = np.random.default_rng(0)
    if model == "mlp":
        import onnxruntime

        x = rng.standard_normal(ROW).astype(np.float32)
        session = onnxruntime.InferenceSession(MODELS["digits_mlp"].path())
        return {"X": x}, {"probabilities": session.run(["probabilities"], {"X": x})[0]}
    x = rng.standard_normal(BIG if model == "big" else SMALL).astype(np.float32)
    return {"INPUT0": x}, {"OUTPUT0": x}


def foreign(server: Server, target: Target, case: Case, count: int) -> list[Exchange]:
    """Requests of servers with a protocol of their own."""
    inputs, expected = question(case.model)
    (x,), (y,) = inputs.values(), expected.values()
    path, key = {"raw": ("/inference", ""), "json": ("/predict", "output"), "bento": (
        "/predict", "")}[server.dialect]  # fmt: skip

    def judge(headers: dict[bytes, bytes], body: bytes) -> None:
        if server.dialect == "raw":
            found = np.frombuffer(body, np.float32).reshape(-1)
        else:
            told = json.loads(body)
            found = np.array(told[key] if key else told, np.float32).reshape(-1)
        if found.shape != y.reshape(-1).shape or not np.allclose(found, y.reshape(-1), atol=1e-5):
            raise Wrong(f"{server.name}: {body[:100]!r}")

    body = x.tobytes() if server.dialect == "raw" else json.dumps({"input": x.tolist()}).encode()
    kind = "octet-stream" if server.dialect == "raw" else "json"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {target.authority}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/{kind}\r\n\r\n"
    )
    return [Exchange(head.encode() + body, judge) for _ in range(count)]


@contextmanager
def started(server: Server, model: str, folder: Path, cores: str):
    """Start a server (on some cores), wait until it answers, and stop it with its children."""
    http, grpc = free_port(), free_port()
    command, extra = server.start(model, folder, http, grpc)
    told = {**os.environ, "MLP": str(MODELS["digits_mlp"].path()), **extra}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*(["taskset", "-c", cores] if cores else []), *command],
            stdout=log, stderr=log, env=told, start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        running = Started(server, process, http, grpc)
        wait_until_right(running, model)
        yield running
    finally:
        stop(process)


def wait_until_right(running: Started, model: str) -> None:
    """Ask until an answer is right."""
    until = time.monotonic() + START_S
    quick = Settings(warm_up_s=0.0, window_s=0.1, windows=1)
    while True:
        try:
            for protocol in running.server.protocols:
                case = Case(model, protocol, 1)
                with running.load(case, quick) as load:
                    load.closed(1)
            if running.server.dialect == "v2":
                require_ready(running.http)
            return
        except (Unavailable, InvalidArgument) as error:
            if running.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{running.server.name} does not answer: {error}") from error
            time.sleep(0.2)


def require_ready(port: int) -> None:
    """Unavailable while a server prepares other models, which would take part of its core."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/v2/health/ready")
        status = connection.getresponse().status
    except OSError as error:
        raise Unavailable(str(error)) from error
    finally:
        connection.close()
    if status != 200:
        raise Unavailable(f"not ready: {status}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
