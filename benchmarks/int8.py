"""Quantized models: tuili beside onnxruntime and openvino on the same files: `make bench-int8`.

All engines and tuili's fp32 run turn about, so that a slow moment of the machine hits all of them.
For every file: milliseconds of each engine, how much faster than the best peer and than our own
fp32, how often the first class is that of the fp32 model on pictures that calibration did not see,
what the arithmetic alone would take at the measured 8-bit peak, and the part of that peak reached.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.int8_peak import peak_gops
from benchmarks.quantized import QUANTIZED, QuantizedModel
from tuili.bench.engines import Feeds, Loaded, Settings, load_engine
from tuili.bench.report import record
from tuili.codegen.targets import native_target
from tuili.compiler import Options, generate
from tuili.importers.onnx import import_model
from tuili.lower.program import calls_of
from tuili.runtime.cpu import host_features

PEERS = ("onnxruntime", "openvino")
PICTURES = 20
HELD_OUT = 77  # the seed of pictures that calibration did not see


def main() -> None:
    """Measure the files named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="all quantized models when none is named")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("build/int8.json"))
    parser.add_argument("--keep", action="store_true", help="write to benchmarks/results")
    options = parser.parse_args()
    target = native_target(host_features())
    peak = peak_gops(target)
    print(f"8-bit peak of one core: {peak:.0f} GOP/s", flush=True)
    settings = Settings(options.threads)
    records: list[Any] = []
    for name in options.models or QUANTIZED:
        records.append(_measure(QUANTIZED[name], settings, options.rounds, peak * options.threads))
        print(_shown(records[-1]), flush=True)
    kept = record([], settings) | {"models": records}
    kept["machine"] |= {"target": target.name, "peak_int8_gops": peak}
    folder, threads = Path(__file__).parent / "results", options.threads
    place = folder / f"int8-{target.name}-{threads}-thread.json" if options.keep else options.json
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(kept, indent=1) + "\n")


def _measure(quantized: QuantizedModel, settings: Settings, rounds: int, peak: float) -> Any:
    feeds = quantized.model.inputs(quantized.model.sizes[0])
    runs, failures = _load_all(quantized, feeds, settings)
    times = _turn_about({name: run.answer for name, run in runs.items()}, rounds)
    gop = _giga_operations(quantized, feeds)
    return {
        "model": quantized.name,
        "milliseconds": times,
        "failures": failures,
        "gop": gop,
        "floor_ms": gop / peak * 1000,
        "agreement": _agreements(quantized, settings),
    }


def _load_all(
    quantized: QuantizedModel, feeds: Feeds, settings: Settings
) -> tuple[dict[str, Loaded], dict[str, str]]:
    wanted = {name: (name, quantized.path()) for name in ("tuili", *PEERS)}
    wanted["tuili fp32"] = ("tuili", quantized.model.path())
    found: dict[str, Loaded] = {}
    failures: dict[str, str] = {}
    for name, (engine, path) in wanted.items():
        try:
            found[name] = load_engine(engine, path, feeds, settings)
        except RuntimeError as error:  # the others still have something to show
            failures[name] = str(error).splitlines()[0]
    return found, failures


def _turn_about(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        calls[name]()
    for turn in range(rounds):
        for step in range(len(names)):
            name = names[(turn + step) % len(names)]  # nobody always goes first
            start = time.perf_counter()
            calls[name]()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def _giga_operations(quantized: QuantizedModel, feeds: Feeds) -> float:
    shapes = {name: value.shape for name, value in feeds.items()}
    compiled = generate(import_model(quantized.path()), Options(shapes=shapes))
    products = [call for call in calls_of(compiled.program.steps) if call.label.startswith("Q")]
    return sum(call.flops for call in products if isinstance(call.flops, int)) * 1e-9


def _agreements(quantized: QuantizedModel, settings: Settings) -> dict[str, float]:
    """How often each engine's largest output is where fp32 has it; for vectors, the mean cosine."""
    feeds = list(quantized.pictures(PICTURES, HELD_OUT))
    want = list(_answers("onnxruntime", quantized.model.path(), feeds, settings))
    result: dict[str, float] = {}
    for engine in ("tuili", *PEERS):
        try:
            got = list(_answers(engine, quantized.path(), feeds, settings))
        except RuntimeError:
            continue
        pairs = zip(got, want, strict=True)
        result[engine] = float(np.mean([_agreement(a, b) for a, b in pairs]))
    return result


def _agreement(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    if got.ndim == 2:
        return float(np.argmax(got) == np.argmax(want))
    a, b = (array.reshape(-1).astype(np.float64) for array in (got, want))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _answers(
    engine: str, path: Path, feeds: Sequence[Feeds], settings: Settings
) -> Iterator[np.ndarray[Any, Any]]:
    """The first output for every picture; the engine reads its inputs from the same arrays."""
    shared = {name: value.copy() for name, value in feeds[0].items()}
    loaded = load_engine(engine, path, shared, settings)
    for each in feeds:
        for name, value in each.items():
            shared[name][...] = value
        yield np.array(loaded.answer()[0])


def _shown(record: Any) -> str:
    middle = {name: median(times) for name, times in record["milliseconds"].items()}
    best = {name: min(times) for name, times in record["milliseconds"].items()}
    lines: list[str] = []
    for title, found in (("medians", middle), ("best", best)):
        own = found["tuili"]
        ratios = ", ".join(f"{time / own:.2f} x {name}" for name, time in found.items())
        times = ", ".join(f"{name} {time:.2f}" for name, time in found.items())
        lines.append(f"    {title}, ms: {times}: {ratios}")
    agreement = ", ".join(f"{name} {part:.3f}" for name, part in record["agreement"].items())
    floor = record["floor_ms"]
    return "\n".join(
        [
            record["model"],
            *lines,
            f"    agreement with fp32: {agreement}",
            f"    arithmetic at peak {floor:.2f} ms: {100 * floor / best['tuili']:.0f} % of peak",
            *(f"    {name} failed: {reason}" for name, reason in record["failures"].items()),
        ]
    )


if __name__ == "__main__":
    main()
