"""Chaos: mixed load while model hosts are killed, leak, hang and crash; nothing may be lost.

    make chaos                  python -m benchmarks.chaos --seconds 600

A calm phase first, for comparison. Then every few seconds one model host gets `kill -9`, while one
model leaks until it is recycled, one hangs on some requests and one dies of others. Every answer is
compared. Exits with 1 if an answer was wrong, if a request without poison was refused or lost, or
if a model that was left alone answers its p99 in more than twice the time of the calm phase.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tuili.bench.load.answers import Expectation
from tuili.bench.load.arrivals import Poisson
from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Exchange, Log, Verdict
from tuili.bench.load.levels import connector
from tuili.bench.load.payloads import Question, exchange
from tuili.bench.load.sockets import Target
from tuili.bench.load.windows import Window, summarize

POISON, WIDTH = 13.0, 16
SOURCE = """
import os, signal, time
from pathlib import Path
import numpy as np

class Model:
    def __init__(self, parameters):
        self.hoard = []
        Path(__file__).with_name("pid").write_text(str(os.getpid()))

    def run(self, inputs):
        x = inputs["x"]
        if {leaks}:
            self.hoard.append(np.ones(1 << 18, np.uint8))
        if (x == {poison}).any():
            {act}
        return {{"y": x * 2}}
"""
CONFIG = """
max_batch_size: 16
dynamic_batching {{ }}
input {{ name: "x" data_type: TYPE_FP32 dims: [ {width} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {width} ] }}
{extra}
"""


def parameter(key: str, value: object) -> str:
    """A line of a configuration."""
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'


@dataclass(frozen=True, slots=True)
class Subject:
    """A model of the menagerie."""

    name: str
    backend: str = "python"
    leaks: bool = False
    poisoned: str = ""  # what it does when a request has the poison
    extra: str = ""
    killed: bool = False

    @property
    def left_alone(self) -> bool:
        """Whether nothing is done to it."""
        return not (self.leaks or self.poisoned or self.killed)


SUBJECTS = (
    Subject("native", backend="identity"),
    Subject("quiet"),
    Subject("killed", killed=True),
    Subject("leaks", leaks=True, extra=parameter("host_max_rss_mb", 160)),
    Subject("hangs", poisoned="time.sleep(600)", extra=parameter("host_run_timeout_s", 1)),
    Subject("crashes", poisoned="os.kill(os.getpid(), signal.SIGSEGV)"),
)


def write(repository: Path, subjects: Sequence[Subject] = SUBJECTS) -> None:
    """The model repository."""
    for subject in subjects:
        version = repository / subject.name / "1"
        version.mkdir(parents=True)
        text = CONFIG.format(width=WIDTH, extra=subject.extra)
        if subject.backend == "identity":
            text += 'backend: "identity"\n'
        else:
            act = subject.poisoned or "pass"
            source = SOURCE.format(leaks=subject.leaks, poison=POISON, act=act)
            (version / "model.py").write_text(source)
        (version.parent / "config.pbtxt").write_text(text)


@contextmanager
def served(repository: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A server over the repository; its process and ports."""
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "tuili", "serve", str(repository), *ports]
    process = subprocess.Popen(
        [*command, "--log-level", "error", *more], stdout=subprocess.PIPE, text=True,
        stderr=(repository.parent / "log").open("w"),
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        if not line.startswith("ready:"):
            raise RuntimeError(f"no server: {(repository.parent / 'log').read_text()[-2000:]}")
        words = (word.partition("=") for word in line.split() if "=" in word)
        yield process, {name: int(port) for name, _, port in words}
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Client:
    """An open loop on one model over one protocol, in a thread of its own."""

    subject: Subject
    target: Target
    rate: float
    poison_every: int
    log: Log = field(default_factory=Log)
    poison: Log = field(default_factory=Log)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until told to stop; then the answers are waited for."""
        requests = [self._request(number) for number in range(max(self.poison_every, 64))]
        driver = Driver(connector(self.target, 1), requests, self.log)
        driver.open(Poisson(self.rate, hash(self.subject.name) & 0xFFFF), 2, 60)
        while not self.stop.is_set():
            driver.run(time.perf_counter() + 0.2)
        driver.drain(60.0)
        driver.close()

    def _request(self, number: int) -> Exchange:
        rng = np.random.default_rng(number)
        x = rng.standard_normal((1 + number % 3, WIDTH)).astype(np.float32)
        label = ""
        if self.subject.poisoned and number == self.poison_every - 1:
            x[0, 0], label = POISON, "poison"
        y = x if self.subject.backend == "identity" else x * 2
        question = Question(self.subject.name)
        return exchange(self.target, question, {"x": x}, Expectation({"y": y}), label)


def kill_some(
    repository: Path,
    subjects: Sequence[Subject],
    every_s: float,
    stop: threading.Event,
    kills: list[str],
) -> None:
    """`kill -9` to one host every few seconds: mostly of one model, now and then of others."""
    chosen = random.Random(1)
    victims = [s.name for s in subjects if s.killed] * 3
    victims += [s.name for s in subjects if s.poisoned or s.leaks]
    while not stop.wait(every_s):
        name = chosen.choice(victims)
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((repository / name / "1" / "pid").read_text()), signal.SIGKILL)
            kills.append(name)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one model's requests."""

    subject: Subject
    calm: Window
    chaos: Window
    poison: int  # requests that were expected to fail
    texts: dict[str, int]

    @property
    def slower(self) -> float:
        """How many times slower p99 was under chaos."""
        return self.chaos.percentile(99.0) / max(self.calm.percentile(99.0), 1e-9)


def unpoisoned(log: Log) -> tuple[Log, int]:
    """The log without poisonous requests, and how many those were."""
    found = Log(texts=log.texts)
    for due, done, verdict, label in zip(log.due, log.done, log.verdicts, log.labels, strict=True):
        if label != "poison" or verdict is Verdict.WRONG:
            found.add(due, done, verdict, label)
    return found, log.labels.count("poison")


def run(calm_s: float, chaos_s: float, kill_every_s: float, rate: float) -> tuple[list[Fate], str]:
    """Everything; the fates and the metrics at the end."""
    with tempfile.TemporaryDirectory(prefix="tuili-chaos-") as folder:
        repository = Path(folder) / "repository"
        write(repository)
        with served(repository) as (_, ports):
            # Each costs two restarts, and the model must keep up with its load meanwhile.
            poison_every = int(rate * kill_every_s * 4)
            clients = [
                Client(subject, Target(protocol, "127.0.0.1", ports[protocol]), rate, poison_every)
                for subject in SUBJECTS
                for protocol in ("http", "grpc")
            ]
            threads = [threading.Thread(target=client.run) for client in clients]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            time.sleep(calm_s)
            begin, stop, kills = time.perf_counter(), threading.Event(), list[str]()
            killer = threading.Thread(
                target=kill_some, args=(repository, SUBJECTS, kill_every_s, stop, kills)
            )
            killer.start()
            time.sleep(chaos_s)
            stop.set()
            killer.join()
            for client in clients:
                client.stop.set()
            for thread in threads:
                thread.join()
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics']}/metrics").read()
            print(f"{len(kills)} kills: {', '.join(sorted(set(kills)))}")
    return fates(clients, SUBJECTS, (start, begin, time.perf_counter())), metrics.decode()


def fates(
    clients: list[Client], subjects: Sequence[Subject], moments: tuple[float, float, float]
) -> list[Fate]:
    """Calm and chaos of every model, both protocols together."""
    start, begin, end = moments
    found = []
    for subject in subjects:
        whole = Log()
        for client in clients:
            if client.subject is subject:
                for name in ("due", "done", "verdicts", "labels"):
                    getattr(whole, name).extend(getattr(client.log, name))
                whole.texts.update(client.log.texts)
        log, poison = unpoisoned(whole)
        calm = summarize(log, start + 0.5, begin, by_due=True)
        chaos = summarize(log, begin, end, by_due=True)
        found.append(Fate(subject, calm, chaos, poison, dict(whole.texts)))
    return found


def show(found: list[Fate]) -> None:
    """The table."""
    heads = ("model", "answers", "wrong", "refused", "lost", "poison", "p99 calm", "p99 chaos", "x")
    print(("{:10}" + "{:>10}" * 8).format(*heads))
    for fate in found:
        chaos = fate.chaos
        print(
            f"{fate.subject.name:10}{fate.calm.answers + chaos.answers:10}{chaos.wrong:10}"
            f"{chaos.refused:10}{chaos.lost:10}{fate.poison:10}"
            f"{fate.calm.percentile(99.0):10.2f}{chaos.percentile(99.0):10.2f}{fate.slower:10.2f}"
        )
    for fate in found:
        for text, count in fate.texts.items():
            print(f"{fate.subject.name}: {count} x {text}")


def verdict(found: list[Fate], *, latency: bool) -> list[str]:
    """What is not as it should be."""
    bad = [
        f"{fate.subject.name}: {kind}"
        for fate in found
        for window in (fate.calm, fate.chaos)
        for kind in ("wrong", "refused", "lost")
        if getattr(window, kind)
    ]
    if latency:
        bad += [
            f"{fate.subject.name}: p99 {fate.slower:.1f} times that of the calm"
            for fate in found
            if fate.subject.left_alone and fate.slower > 2
        ]
    return bad


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--calm", type=float, default=30)
    parser.add_argument("--kill-every", type=float, default=5)
    parser.add_argument("--rate", type=float, default=40, help="per model and protocol")
    options = parser.parse_args()
    found, metrics = run(options.calm, options.seconds, options.kill_every, options.rate)
    show(found)
    print(
        *(line for line in metrics.splitlines() if line.startswith("tuili_host_deaths")), sep="\n"
    )
    bad = verdict(found, latency=True)
    print("\n".join(bad) or "nothing lost, nothing wrong, nobody else slowed down")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
