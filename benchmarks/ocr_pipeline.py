"""The OCR pipeline inside the server beside a client that calls its networks one by one.

`python -m benchmarks.ocr_pipeline [--concurrency 8] [--seconds 8] [--rounds 5]`: closed loop,
interleaved rounds, the same picture; prints pictures per second, median latency and their ratio.
Prediction: the client-driven way moves 6.5 MB of floats per picture over HTTP and decodes in its
own processes; the pipeline moves the picture's bytes once and shares cores with nobody's GIL.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from examples.ocr.pictures import rendered_sample
from examples.ocr.reader import read
from examples.ocr.service import build_repository, characters, remote, served

WAYS = ("client", "pipeline")


def main() -> None:
    """Serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with served(build_repository(print), threads=1) as address:
        workers = [_Worker(address) for _ in range(options.concurrency)]
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        latencies: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                found = _round(workers, way, options.seconds)
                rates[way].append(len(found) / options.seconds)
                latencies[way] += found
        for worker in workers:
            worker.close()
    for way in WAYS:
        p50, p99 = np.percentile(latencies[way], [50, 99])
        rate = statistics.median(rates[way])
        print(f"{way:9} {rate:7.2f} pictures/s  p50 {1000 * p50:6.0f} ms  p99 {1000 * p99:6.0f} ms")
    ratios = [b / a for a, b in zip(rates["client"], rates["pipeline"], strict=True)]
    print(f"pipeline / client: {statistics.median(ratios):.2f} (c={options.concurrency})")


class _Worker:
    """A client process: it works in one of two ways until it is told to stop."""

    def __init__(self, address: str) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(address, theirs)
        )
        self._process.start()
        self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(None)
        self._process.join()


def _round(workers: list[_Worker], way: str, seconds: float) -> list[float]:
    for worker in workers:
        worker.pipe.send((way, seconds))
    return [latency for worker in workers for latency in worker.pipe.recv()]


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
            pipe.send(_latencies(ways[order[0]], order[1]))


def _latencies(call: Callable[[], object], seconds: float) -> list[float]:
    """Closed loop; what ends after the time does not count."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        if time.perf_counter() <= end:
            found.append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    main()
