"""A hundred swaps of the version that answers, at full load: errors, and p99 beside no swaps.

    python -m benchmarks.version_swaps [--swaps 100] [--every 0.25] [--clients 4]

Phases with swaps and phases without take turns. A swap is an operator's: `POST
/v2/models/m/rollback` loads the other version if need be, writes the journal, moves the pointer.
With `--reload` each swap also reloads the version from disk: load, warm, switch, drain. The clients
keep the server busy from a process of their own, so that what they wait for is the server. Exits
with 1 on an error, or when the p99 with swaps is more than 1.2 times that without.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.models import MODELS
from tuili.bench.load.answers import Expectation
from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Log, Verdict
from tuili.bench.load.levels import connector
from tuili.bench.load.payloads import Question, exchange
from tuili.bench.load.sockets import Target
from tuili.cli.operating import call

SOURCE, INPUT = "digits_mlp", "X"
ROUNDS = 10
PHASES = ("calm", "swaps")


@dataclass
class Phases:
    """When each phase lasted; moments of `perf_counter`, which all processes share."""

    spans: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {phase: [] for phase in PHASES}
    )

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Note one."""
        began = time.perf_counter()
        yield
        self.spans[phase].append((began, time.perf_counter()))

    def times(self, log: Log, phase: str) -> list[np.ndarray]:
        """Milliseconds of the requests that began in each span of a phase."""
        due, done = np.array(log.due), np.array(log.done)
        return [
            (done - due)[(begin <= due) & (due < end)] * 1e3 for begin, end in self.spans[phase]
        ]


def ask(port: int, clients: int, told: Connection) -> None:
    """Clients that never pause, until told; then what came of their requests is sent back."""
    target, log = Target("http", "127.0.0.1", port), Log()
    rng = np.random.default_rng(0)
    requests = [
        exchange(
            target, Question("m"), {INPUT: rng.random((4, 64)).astype(np.float32)}, Expectation()
        )
        for _ in range(clients + 1)
    ]
    driver = Driver(connector(target, 1), requests, log)
    driver.closed(clients)
    while not told.poll():
        driver.run(time.perf_counter() + 0.2)
    driver.drain(10.0)
    driver.close()
    told.send(log)


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


def take_turns(server: str, options: argparse.Namespace) -> Phases:
    """A phase without swaps, then one of as many seconds with them."""
    phases, to = Phases(), 2
    time.sleep(2.0)
    for _ in range(ROUNDS):
        with phases.during("swaps"):
            for _ in range(options.swaps // ROUNDS):
                due = time.perf_counter() + options.every
                swap(server, to, options.reload)
                to = 3 - to
                time.sleep(max(due - time.perf_counter(), 0.0))
        time.sleep(0.3)
        began, ended = phases.spans["swaps"][-1]
        with phases.during("calm"):
            time.sleep(ended - began)
        time.sleep(0.1)
    return phases


def report(log: Log, phases: Phases) -> int:
    """Print both phases; 1 when the goal is missed."""
    p99: dict[str, list[float]] = {}
    for phase in PHASES:
        spans = phases.times(log, phase)
        p99[phase] = [float(np.percentile(span, 99)) for span in spans]
        together = np.concatenate(spans)
        print(
            f"{phase:6} {len(together):7} answers, median {np.median(together):.2f} ms, "
            f"p99 {np.percentile(together, 99):.2f} ms, of the rounds {np.median(p99[phase]):.2f}"
        )
    ratios = [swaps / calm for calm, swaps in zip(p99["calm"], p99["swaps"], strict=True)]
    errors = sum(verdict is not Verdict.GOOD for verdict in log.verdicts)
    low, ratio, high = np.percentile(ratios, [25, 50, 75])
    print(
        f"errors {errors}, p99 with swaps / without {ratio:.2f} "
        f"(median of {len(ratios)} rounds, half of them {low:.2f}-{high:.2f}; goal 1.20)"
    )
    for text, count in log.texts.most_common(3):
        print(f"  {count} x {text}")
    return 1 if errors or ratio > 1.2 else 0


@contextmanager
def served(folder: str) -> Iterator[int]:
    """A server over the repository; its port."""
    command = [sys.executable, "-m", "tuili", "serve", folder, "--http-port=0",
               "--grpc-port=-1", "--metrics-port=-1", "--log-level=error",
               "--model-control-mode=explicit", "--load-model=*"]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline().split("http=")[1].split()[0])
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def loaded(port: int, clients: int) -> Iterator[Connection]:
    """A process of clients; anything sent to it ends its load."""
    processes = multiprocessing.get_context("spawn")
    told, theirs = processes.Pipe()
    process = processes.Process(target=ask, args=(port, clients, theirs))
    process.start()
    try:
        yield told
    finally:
        process.kill()
        process.join()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--every", type=float, default=0.25, help="seconds between two; 0: at once")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--reload", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuili-swaps-") as folder:
        repository(Path(folder))
        with served(folder) as port, loaded(port, options.clients) as told:
            phases = take_turns(f"http://127.0.0.1:{port}", options)
            told.send("end")
            log = told.recv()
    print(f"{options.swaps} swaps, {options.clients} clients")
    return report(log, phases)


if __name__ == "__main__":
    sys.exit(main())
