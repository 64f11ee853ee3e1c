"""A hundred swaps of the version that answers, at full load: errors, and p99 beside no swaps.

    python -m benchmarks.version_swaps [--swaps 100] [--clients 4]

Phases with swaps and phases without take turns. A swap is an operator's: `POST
/v2/models/m/rollback` loads the other version if need be, writes the journal, moves the pointer.
With `--reload` each swap also reloads the version from disk: load, warm, switch, drain. Exits with
1 on an error, or when the p99 with swaps is more than 1.2 times that without.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as client_library

from benchmarks.models import MODELS
from tuili.cli.operating import call

SOURCE, INPUT = "digits_mlp", "X"
ROUNDS = 5


class Load:
    """Clients that never pause; rows are (phase, seconds, version)."""

    def __init__(self, address: str, clients: int) -> None:
        self.phase = "warm"
        self.rows: list[tuple[str, float, str]] = []
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(address, seed)) for seed in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, address: str, seed: int) -> None:
        client = client_library.InferenceServerClient(address)
        rows = np.random.default_rng(seed).random((4, 64)).astype(np.float32)
        tensor = client_library.InferInput(INPUT, rows.shape, "FP32")
        tensor.set_data_from_numpy(rows)
        while not self._stop.is_set():
            phase, before = self.phase, time.perf_counter()
            try:
                answer = client.infer("m", [tensor]).get_response()
            except Exception as error:  # noqa: BLE001 - every kind of failure is counted
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            self.rows.append((phase, time.perf_counter() - before, answer["model_version"]))
        client.close()

    def end(self) -> None:
        """Stop all clients."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def repository(folder: Path) -> None:
    """A model of two versions, of which one is loaded at first."""
    for version in ("1", "2"):
        (folder / "m" / version).mkdir(parents=True)
        shutil.copy(MODELS[SOURCE].path(), folder / "m" / version / "model.onnx")
    policy = "version_policy { specific { versions: 1 } }"
    (folder / "m" / "config.pbtxt").write_text(policy)


def swap(server: str, to: int, reload: bool) -> None:
    """Let version `to` answer."""
    if reload:
        call(server, "POST", "/v2/repository/models/m/load")
    body = json.dumps({"version": to, "why": "swap"}).encode()
    call(server, "POST", "/v2/models/m/rollback", body)


def run(server: str, load: Load, swaps: int, reload: bool) -> None:
    """Take turns: a phase without swaps, a phase of as many seconds with them."""
    time.sleep(2.0)
    to = 2
    for _ in range(ROUNDS):
        load.phase = "swaps"
        began = time.monotonic()
        for _ in range(swaps // ROUNDS):
            swap(server, to, reload)
            to = 3 - to
        lasted = time.monotonic() - began
        load.phase = "between"
        time.sleep(0.3)
        load.phase = "calm"
        time.sleep(max(lasted, 1.0))
        load.phase = "between"


def report(load: Load) -> int:
    """Print both phases; 1 when the goal is missed."""
    p99: dict[str, Any] = {}
    for phase in ("calm", "swaps"):
        times = np.array([row[1] for row in load.rows if row[0] == phase]) * 1e3
        versions = {row[2] for row in load.rows if row[0] == phase}
        p50, p99[phase] = np.percentile(times, [50, 99])
        print(
            f"{phase:6} {len(times):7} answers of version {'/'.join(sorted(versions))}, "
            f"median {p50:.2f} ms, p99 {p99[phase]:.2f} ms"
        )
    ratio = p99["swaps"] / p99["calm"]
    print(f"errors {len(load.errors)}, p99 with swaps / without {ratio:.2f} (goal 1.20)")
    for text in load.errors[:3]:
        print(f"  {text}")
    return 1 if load.errors or ratio > 1.2 else 0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--reload", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuili-swaps-") as folder:
        repository(Path(folder))
        command = [sys.executable, "-m", "tuili", "serve", folder, "--http-port=0",
                   "--grpc-port=-1", "--metrics-port=-1", "--log-level=error",
                   "--model-control-mode=explicit", "--load-model=*"]  # fmt: skip
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split("http=")[1].split()[0]
            load = Load(f"127.0.0.1:{port}", options.clients)
            try:
                run(f"http://127.0.0.1:{port}", load, options.swaps, options.reload)
            finally:
                load.end()
        finally:
            server.terminate()
            server.wait(30)
    print(f"{options.swaps} swaps, {options.clients} clients")
    return report(load)


if __name__ == "__main__":
    sys.exit(main())
