"""CPU time of one small request inside the server, without sockets: microseconds per request.

    python -m benchmarks.server_path [--together 8] [--ids] [--profile http]

Bytes are handed to a connection as the event loop would, `--together` connections per tick, and
the answers are taken by a transport that only counts them. So this is all of the server's own work:
framing, parsing, checks, queue, batcher, statistics, the model's call, encoding. The kernel and the
loop add some 10 us per request. Each row switches one feature on.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpack
import numpy as np
import uvloop

from tuili.bench.load.payloads import Question, grpc_message, http_text
from tuili.bench.load.sockets import Target
from tuili.server import http
from tuili.server.dataplane import DataPlane
from tuili.server.grpc import frames as h2
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.listener import GrpcListener
from tuili.server.http.application import Application
from tuili.server.http.listener import HttpListener
from tuili.server.options import ServerOptions

BASE = 'backend: "identity" max_batch_size: 64\n'
TENSOR = "data_type: TYPE_FP32 dims: [ 16 ]"
PORTS = f'input {{ name: "INPUT" {TENSOR} }} output {{ name: "OUTPUT" {TENSOR} }}\n'
MODELS = {
    "plain": BASE + PORTS,
    "batching": BASE + PORTS + "dynamic_batching { }",
    "priorities": BASE
    + PORTS
    + "dynamic_batching { priority_levels: 2 default_priority_level: 1 }",
    "cache": BASE + PORTS + "dynamic_batching { } response_cache { enable: true }",
}
COUNT = 4000


@dataclass
class Sink:
    """A transport that counts what is written."""

    writes: int = 0
    bytes: int = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.bytes += len(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def get_extra_info(self, name: str) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def can_write_eof(self) -> bool:
        return False


class Peer:
    """One connection and the bytes of its requests."""

    def __init__(self, connection: Any, first: bytes) -> None:
        self.connection = connection
        self.sink = Sink()
        connection.connection_made(self.sink)
        if first:
            self.feed(first)

    def feed(self, data: bytes) -> None:
        """As the event loop does with bytes from a socket."""
        buffer = self.connection.get_buffer(-1)
        buffer[: len(data)] = data
        self.connection.buffer_updated(len(data))


def requests(protocol: str, model: str, *, ids: bool) -> list[bytes]:
    """The bytes of COUNT requests, each with an id of its own if there are `ids`."""
    inputs = {"INPUT": np.random.default_rng(0).random((1, 16), np.float32)}
    target = Target(protocol, "127.0.0.1", 8000)
    if protocol == "http":
        return [http_text(target, question(model, at, ids=ids), inputs) for at in range(COUNT)]
    encoder = hpack.Encoder()
    fields = [
        (":method", "POST"), (":scheme", "http"), (":authority", "127.0.0.1:8001"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"), ("te", "trailers"),
        ("content-type", "application/grpc"), ("user-agent", "grpc-python/1.67"),
    ]  # fmt: skip
    first, later = encoder.encode(fields), encoder.encode(fields)
    found = []
    for number in range(COUNT):
        message = grpc_message(question(model, number, ids=ids), inputs)
        stream, block = 2 * number + 1, later if number else first
        head = h2.frame_head(h2.HEADERS, h2.END_HEADERS, stream, len(block)) + block
        data = h2.frame_head(h2.DATA, h2.END_STREAM, stream, len(message)) + message
        found.append(head + data)
    return found


def question(model: str, number: int, *, ids: bool) -> Question:
    """What a request asks."""
    return Question(model, ident=f"request-{number:08}" if ids else "")


def peers(protocol: str, dataplane: DataPlane, count: int) -> list[Peer]:
    """Connections of a front end that listens nowhere."""
    if protocol == "http":
        limits = http.HttpLimits()
        application = Application(dataplane, limits, http.Refusals())
        listener = HttpListener(application.dispatch, limits)
        return [Peer(listener.connect(), b"") for _ in range(count)]
    bounds = GrpcLimits()
    listener = GrpcListener(Inference(dataplane, bounds.room), bounds)
    hello = h2.PREFACE + h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 1 << 24})
    hello += h2.window_update_frame(0, 1 << 30)
    return [Peer(listener.connect(), hello) for _ in range(count)]


async def run(
    protocol: str, dataplane: DataPlane, model: str, together: int, *, ids: bool = False
) -> float:
    """Seconds per request."""
    found = peers(protocol, dataplane, together)
    texts = requests(protocol, model, ids=ids)[: COUNT // together]
    start = time.perf_counter()
    for text in texts:
        before = [peer.sink.writes for peer in found]
        for peer in found:
            peer.feed(text)
        # One turn runs the batch; models that do not batch may need more.
        while any(p.sink.writes == b for p, b in zip(found, before, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0)
    spent = time.perf_counter() - start
    for peer in found:
        assert peer.sink.bytes > 100 * len(texts), "requests were not answered"
        peer.connection.connection_lost(None)
    return spent / (len(texts) * together)


def write_models(folder: Path) -> None:
    """One identity model per feature."""
    for name, text in MODELS.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)


async def measure(rounds: int, together: int, profile: str, *, ids: bool) -> None:
    """Print microseconds per request, the best of interleaved rounds."""
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        dataplane = DataPlane(ServerOptions((Path(folder),)))
        await dataplane.start()
        if profile:
            with cProfile.Profile() as recorder:
                await run(profile, dataplane, "batching", together, ids=ids)
            pstats.Stats(recorder).sort_stats("tottime").print_stats(40)
            return
        best: dict[tuple[str, str], float] = {}
        for _ in range(rounds):
            for protocol in ("http", "grpc"):
                for model in MODELS:
                    spent = await run(protocol, dataplane, model, together, ids=ids)
                    key = protocol, model
                    best[key] = min(best.get(key, spent), spent)
        for (protocol, model), spent in best.items():
            print(f"{protocol} {model:12} {spent * 1e6:6.1f} us")
        await dataplane.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--together", type=int, default=8, help="requests per turn of the loop")
    parser.add_argument("--ids", action="store_true", help="each request has an id of its own")
    parser.add_argument("--profile", choices=("http", "grpc"), default="")
    options = parser.parse_args()
    uvloop.run(measure(options.rounds, options.together, options.profile, ids=options.ids))


if __name__ == "__main__":
    main()
