"""Soak: memory and descriptors of a server under load must not grow.

    make soak                   python -m benchmarks.soak --seconds 1200

Load over both protocols, while models are loaded and unloaded, model hosts are killed and clients
come and go, some of them rudely. The server's resident memory and open descriptors (beside those
of connections that a client holds, too) are sampled each second; after a warm-up (a fifth of the
time) their slope must be zero within the noise, by Theil and Sen's estimator. Exits with 1 if not,
or if an answer was wrong or lost.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import chaos
from benchmarks.chaos import Client, Subject
from tuili.bench.load.sockets import Target

MIB = 1 << 20
STEADY = (Subject("native", backend="identity"), Subject("quiet"), Subject("killed", killed=True))
PASSING = (Subject("comes", backend="identity"), Subject("goes"))


@dataclass
class Samples:
    """What the server took, second by second."""

    at: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def take(self, pid: int) -> None:
        """One more."""
        self.at.append(time.monotonic())
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        self.rss.append(int(fields[1]) * 4096)
        # The load opens connections as it needs them, and keeps them: both ends are there.
        theirs = sum(_is_socket(each) for each in Path("/proc/self/fd").iterdir())
        self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())) - theirs)


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class Trend:
    """How a quantity moved: in all, and what it scatters around its line."""

    name: str
    first: float
    growth: float
    noise: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it does not grow."""
        return self.growth <= max(3 * self.noise, self.allowed)


def trend(name: str, at: list[float], values: list[float], allowed: float) -> Trend:
    """Theil and Sen's slope over the whole span, which single peaks do not move."""
    step = max(len(at) // 200, 1)
    x, y = np.array(at[::step]), np.array(values[::step])
    pairs = list(itertools.combinations(range(len(x)), 2))
    slope = statistics.median((y[j] - y[i]) / (x[j] - x[i]) for i, j in pairs)
    residuals = y - y[0] - slope * (x - x[0])
    spread = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    return Trend(name, float(y[0]), slope * (x[-1] - x[0]), spread, allowed)


def come_and_go(ports: dict[str, int], stop: threading.Event, every_s: float) -> None:
    """Load and unload models, and be clients that leave without a word."""
    rng, turn = random.Random(2), 0
    while not stop.wait(every_s):
        turn += 1
        action = "unload" if turn % 2 else "load"
        for subject in PASSING:
            connection = http.client.HTTPConnection("127.0.0.1", ports["http"], timeout=60)
            connection.request("POST", f"/v2/repository/models/{subject.name}/{action}", b"{}")
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            if answer.status != 200:
                raise RuntimeError(f"{action} {subject.name}: {answer.status} {text!r}")
        for protocol in ("http", "grpc"):
            for _ in range(5):
                rude = socket.create_connection(("127.0.0.1", ports[protocol]))
                rude.send(rng.randbytes(rng.randrange(1, 60)))
                if rng.random() < 0.5:
                    rude.shutdown(socket.SHUT_WR)
                rude.close()


def write(repository: Path) -> None:
    """The models."""
    chaos.write(repository, (*STEADY, *PASSING))


def run(seconds: float, rate: float, kill_every_s: float) -> tuple[list[Trend], list[str]]:
    """The trends, and what else was not as it should be."""
    with tempfile.TemporaryDirectory(prefix="tuili-soak-") as folder:
        repository = Path(folder) / "repository"
        write(repository)
        explicit = ("--model-control-mode", "explicit", "--load-model", "*")
        with chaos.served(repository, *explicit) as (process, ports):
            clients = [
                Client(subject, Target(protocol, "127.0.0.1", ports[protocol]), rate, 64)
                for subject in STEADY
                for protocol in ("http", "grpc")
            ]
            stop, kills = threading.Event(), list[str]()
            helpers = [threading.Thread(target=client.run) for client in clients]
            helpers.append(
                threading.Thread(target=come_and_go, args=(ports, stop, kill_every_s / 2))
            )
            helpers.append(
                threading.Thread(
                    target=chaos.kill_some, args=(repository, STEADY, kill_every_s, stop, kills)
                )
            )
            for helper in helpers:
                helper.start()
            samples, until = Samples(), time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(1.0)
                samples.take(process.pid)
            stop.set()
            for client in clients:
                client.stop.set()
            for helper in helpers:
                helper.join()
    warm = len(samples.at) // 5
    at = samples.at[warm:]
    trends = [
        trend("resident memory", at, samples.rss[warm:], 2 * MIB),
        trend("descriptors", at, samples.descriptors[warm:], 1.0),
    ]
    verdicts = chaos.verdict(chaos.fates(clients, STEADY, (0.0, 0.0, float("inf"))), latency=False)
    return trends, verdicts


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--rate", type=float, default=60, help="per model and protocol")
    parser.add_argument("--kill-every", type=float, default=10)
    options = parser.parse_args()
    trends, bad = run(options.seconds, options.rate, options.kill_every)
    for each in trends:
        unit = MIB if each.name == "resident memory" else 1
        print(
            f"{each.name}: {each.first / unit:.1f} at first, {each.growth / unit:+.2f} in all, "
            f"noise {each.noise / unit:.2f}: {'flat' if each.flat else 'GROWS'}"
        )
    print("\n".join(bad) or "nothing wrong, nothing lost")
    return 1 if bad or not all(each.flat for each in trends) else 0


if __name__ == "__main__":
    sys.exit(main())
