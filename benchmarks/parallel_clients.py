"""Many stock clients at once against `tuili serve`: no errors, all answers bit-equal.

    python -m benchmarks.parallel_clients --clients 64 --seconds 60

Half of the clients speak HTTP, half gRPC; each sends batches of its own of random sizes. Exits
with 1 when an answer is an error or differs in one bit from `Model.run` on the same rows.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

import tuili
from benchmarks.models import MODELS

MODEL = "digits_mlp"
INPUT, OUTPUTS = "X", ("label", "probabilities")


@dataclass
class Tally:
    """What the clients saw."""

    answers: int = 0
    errors: list[str] = field(default_factory=list)
    differing: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def served() -> Iterator[dict[str, int]]:
    """A server with the model; yields its ports by protocol."""
    with tempfile.TemporaryDirectory(prefix="tuili-clients-") as folder:
        version = Path(folder) / "repository" / MODEL / "1"
        version.mkdir(parents=True)
        shutil.copy(MODELS[MODEL].path(), version / "model.onnx")
        command = [sys.executable, "-m", "tuili", "serve", str(version.parent.parent)]
        ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        server = subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True)
        try:
            yield _ports(server)
        finally:
            server.terminate()
            server.wait(30)


def _ports(server: subprocess.Popen[str]) -> dict[str, int]:
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("ready:"):
            words = (word.partition("=") for word in line.split() if "=" in word)
            return {name: int(port) for name, _, port in words}
    raise RuntimeError("the server ended before it was ready")


def client_of(protocol: str, ports: dict[str, int]) -> tuple[Any, Any]:
    """A client and its module."""
    module = http_client if protocol == "http" else grpc_client
    return module.InferenceServerClient(f"127.0.0.1:{ports[protocol]}"), module


def ask(index: int, ports: dict[str, int], until: float, tally: Tally, model: tuili.Model) -> None:
    """One client: asks until the time is over, compares every answer."""
    rng = np.random.default_rng(index)
    client, module = client_of("http" if index % 2 else "grpc", ports)
    while time.monotonic() < until:
        rows = rng.standard_normal((int(rng.integers(1, 9)), 64)).astype(np.float32)
        tensor = module.InferInput(INPUT, rows.shape, "FP32")
        tensor.set_data_from_numpy(rows)
        try:
            answer = client.infer(MODEL, [tensor])
        except Exception as error:  # noqa: BLE001 - every kind of failure is counted
            with tally.lock:
                tally.errors.append(f"{type(error).__name__}: {error}")
            continue
        right = model.run({INPUT: rows})
        same = all(np.array_equal(answer.as_numpy(name), right[name]) for name in OUTPUTS)
        with tally.lock:
            tally.answers += 1
            tally.differing += not same
    client.close()


def show_cold_calls(ports: dict[str, int]) -> None:
    """Metadata, readiness and statistics by both stock clients."""
    for protocol in ("http", "grpc"):
        client, _ = client_of(protocol, ports)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.get_model_metadata(MODEL)
        assert client.get_inference_statistics(MODEL)
        client.close()


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    model = tuili.load(MODELS[MODEL].path())
    tally = Tally()
    with served() as ports:
        show_cold_calls(ports)
        until = time.monotonic() + options.seconds
        threads = [
            threading.Thread(target=ask, args=(index, ports, until, tally, model))
            for index in range(options.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        show_cold_calls(ports)
    print(
        f"{options.clients} clients, {options.seconds:g} s: {tally.answers} answers, "
        f"{len(tally.errors)} errors, {tally.differing} not bit-equal"
    )
    for error in tally.errors[:5]:
        print(error)
    return 1 if tally.errors or tally.differing else 0


if __name__ == "__main__":
    sys.exit(main())
