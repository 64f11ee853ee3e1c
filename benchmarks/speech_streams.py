"""Silero VAD over many interleaved streams of speech, their state kept by the server.

    python -m benchmarks.speech_streams --streams 100 --seconds 5

Each stream is a sequence over a gRPC stream of its own; it sends a chunk of 32 ms of sound as soon
as the last one is answered. Told: chunks a second, latencies, how many streams are real time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import tritonclient.grpc.aio as grpc

from benchmarks.models import MODELS
from tests.end_to_end.conftest import serving
from tuili.bench.report import machine

CHUNK_S = 0.032
CONFIG = """
max_batch_size: 0
input { name: "input" data_type: TYPE_FP32 dims: [ 1, -1 ] }
input { name: "sr" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "output" data_type: TYPE_FP32 dims: [ 1, 1 ] }
sequence_batching {
  oldest { max_candidate_sequences: 256 }
  state { input_name: "state" output_name: "stateN" data_type: TYPE_FP32 dims: [ 2, 1, 128 ] }
}
"""


def put(repository: Path) -> None:
    """The model, with a configuration that says which tensor is its state."""
    version = repository / "vad" / "1"
    version.mkdir(parents=True)
    shutil.copy(MODELS["silero_vad"].path(), version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(CONFIG)


def speech(stream: int, chunks: int) -> list[np.ndarray]:
    """A voice of its own pitch for each stream, that pauses now and then."""
    rng = np.random.default_rng(stream)
    moments = np.arange(576 * chunks, dtype=np.float32) / 16000
    pitch = rng.uniform(90, 250)
    voice = sum(np.sin(2 * np.pi * pitch * k * moments) / k for k in range(1, 9))
    loud = np.repeat(rng.random(chunks) < 0.7, 576)
    sound = 0.1 * voice * loud + rng.normal(0, 0.01, moments.size)
    return [*sound.astype(np.float32).reshape(chunks, 1, 576)]


async def stream(client: grpc.InferenceServerClient, number: int, end: float) -> list[float]:
    """The latencies of one stream's chunks until `end`."""
    sound = speech(number, 16)
    told: asyncio.Queue[bool] = asyncio.Queue()
    told.put_nowait(True)
    latencies: list[float] = []

    async def ask() -> AsyncIterator[dict[str, object]]:
        at = 0
        while await told.get():
            rate = grpc.InferInput("sr", [1], "INT64")
            rate.set_data_from_numpy(np.array([16000]))
            chunk = grpc.InferInput("input", [1, 576], "FP32")
            chunk.set_data_from_numpy(sound[at % len(sound)])
            last = time.monotonic() >= end
            sent.append(time.monotonic())
            yield {
                "model_name": "vad", "inputs": [chunk, rate], "sequence_id": number + 1,
                "sequence_start": at == 0, "sequence_end": last,
            }  # fmt: skip
            at += 1
            if last:
                return

    sent: list[float] = []
    async for result, error in client.stream_infer(ask()):
        if error is not None:
            raise error
        assert result is not None
        latencies.append(time.monotonic() - sent[-1])
        told.put_nowait(True)
    return latencies


async def measure(url: str, streams: int, seconds: float) -> list[float]:
    """The latencies of all chunks of all streams."""
    async with grpc.InferenceServerClient(url) as client:
        end = time.monotonic() + seconds
        found = await asyncio.gather(*(stream(client, at, end) for at in range(streams)))
    return [latency for each in found for latency in each]


def main() -> None:
    """Print and keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder))
        with serving(Path(folder), "--log-level=warning") as server:
            found = asyncio.run(measure(server.url("grpc"), options.streams, options.seconds))
    p50, p99 = (1e3 * float(np.percentile(found, at)) for at in (50, 99))
    rate = len(found) / options.seconds
    print(
        f"{options.streams} streams: {rate:,.0f} chunks/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms: "
        f"{rate * CHUNK_S:,.0f} streams in real time"
    )
    if options.json:
        told = {"machine": machine(), "streams": options.streams, "chunks_per_s": rate,
                "p50_ms": p50, "p99_ms": p99}  # fmt: skip
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
