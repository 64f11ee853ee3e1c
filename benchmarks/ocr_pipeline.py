"""The OCR pipeline inside the server beside a client that calls its networks one by one.

`python -m benchmarks.ocr_pipeline [--concurrency 8] [--seconds 8] [--rounds 5] [--instances N]`:
closed loop, interleaved rounds, the same picture; prints pictures per second, median latency and
their ratio. There are as many instances of each network as cores, of one thread each; with
`--instances 0` nothing is configured, as a user has it who copies the networks into a folder.

Beside the rates it prints the CPU time of a picture, in the server with its hosts and in clients.
The ratio of the sums is that of the rates where nothing else runs, and holds on a busy machine too.

Prediction. Both ways run the same networks, some 490 ms of CPU for a picture on two cores of Zen 3.
The pipeline has 80 ms of Python steps beside them, and reads each line as wide as it is; a client
takes 150 ms for the same steps and for 27 MB of floats over HTTP, and pads its batches by up to a
tenth. So with all cores busy the ratio is (490 + 25 + 60 + 150) / (490 + 25 + 80) = 1.22.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from examples.ocr.pictures import rendered_sample
from examples.ocr.reader import read
from examples.ocr.service import NETWORKS, build_repository, characters, remote, served
from tuili.bench.load.processes import cpu_seconds

WAYS = ("client", "pipeline")


def main() -> None:
    """Serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(
            _with_instances(Path(folder), options.instances), threads=1 if options.instances else 0
        ) as address,
    ):
        workers = [_Worker(address) for _ in range(options.concurrency)]
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        latencies: dict[str, list[float]] = {way: [] for way in WAYS}
        spent = {way: np.zeros(2) for way in WAYS}
        pictures = dict.fromkeys(WAYS, 0)
        for _ in range(options.rounds):
            for way in WAYS:
                before = _cpu_seconds(workers)
                found = _round(workers, way, options.seconds)
                spent[way] += _cpu_seconds(workers) - before
                pictures[way] += len(found)
                rates[way].append(sum(share for _, share in found) / options.seconds)
                latencies[way] += [latency for latency, _ in found]
        for worker in workers:
            worker.close()
    for way in WAYS:
        server, clients = (1000 * seconds / max(pictures[way], 1) for seconds in spent[way])
        print(f"{way:9} {server:7.0f} ms of CPU a picture in the server, {clients:.0f} in clients")
        p50, p99 = np.percentile(latencies[way], [50, 99])
        rate = statistics.median(rates[way])
        print(f"{way:9} {rate:7.2f} pictures/s  p50 {1000 * p50:6.0f} ms  p99 {1000 * p99:6.0f} ms")
    client, pipeline = (sum(spent[way]) / max(pictures[way], 1) for way in WAYS)
    print(f"CPU, client / pipeline: {client / pipeline:.2f}")
    ratios = [b / a for a, b in zip(rates["client"], rates["pipeline"], strict=True)]
    print(f"pipeline / client: {statistics.median(ratios):.2f} (c={options.concurrency})")


def _with_instances(folder: Path, count: int) -> Path:
    """The repository with so many instances of each network; 0: as it is."""
    for model in build_repository(print).iterdir():
        shutil.copytree(model, folder / model.name)
        if count and model.name in NETWORKS:
            config = folder / model.name / "config.pbtxt"
            config.write_text(f"instance_group [ {{ count: {count} }} ]\n")
    return folder


class _Worker:
    """A client process: it works in one of two ways until it is told to stop."""

    def __init__(self, address: str) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(address, theirs)
        )
        self._process.start()
        self.pid = self._process.pid or 0
        self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(None)
        self._process.join()


def _cpu_seconds(workers: list[_Worker]) -> np.ndarray:
    """CPU time so far: of the server with its hosts, and of all clients."""
    clients = sum(cpu_seconds(worker.pid) for worker in workers)
    me = os.getpid()
    return np.array([cpu_seconds(me) - time.process_time() - clients, clients])


def _round(workers: list[_Worker], way: str, seconds: float) -> list[tuple[float, float]]:
    for worker in workers:
        worker.pipe.send((way, seconds))
    return [call for worker in workers for call in worker.pipe.recv()]


def _work(address: str, pipe: Connection) -> None:
    import tritonclient.http as client

    picture = rendered_sample()
    image = np.asarray(picture)
    symbols = characters()
    with (
        remote(address) as infer,
        client.InferenceServerClient(address, network_timeout=60) as connection,
    ):
        tensor = client.InferInput("image", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        ways: dict[str, Callable[[], object]] = {
            "client": lambda: read(picture, infer, symbols),
            "pipeline": lambda: connection.infer("ocr", [tensor]),
        }
        for way in ways.values():
            way()
        pipe.send("ready")
        while order := pipe.recv():
            pipe.send(_calls(ways[order[0]], order[1]))


def _calls(call: Callable[[], object], seconds: float) -> list[tuple[float, float]]:
    """Closed loop: the latency of each call, and the share of it that lay within the time."""
    found: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        latency = time.perf_counter() - start
        found.append((latency, min((end - start) / latency, 1.0)))
    return found


if __name__ == "__main__":
    main()
