"""Scheduling, measured: overload, and learnt against hand-tuned delays and Triton's batcher.

    make bench-scheduling
    python -m benchmarks.scheduling overload --svg FILE --json FILE
    python -m benchmarks.scheduling delays --models mlp,minilm --concurrency 8,32,128

`overload`: a model of 5 ms a request; goodput and p99 of what is accepted at 0.5 to
5 times its capacity, with and without `max_wait_ms`; of the rounds, which take all loads in turns,
the one of median goodput. The model is served as Python models are, in a process of its own, or
with `--isolation none` on a thread of the server. `delays`: answers per second and p99, a closed
loop; tuili with nothing configured, with each delay of a grid, and Triton where it is installed
(python -m benchmarks.peers.install triton), all servers at once and asked in turns, started anew
for each round, medians of the rounds; the learnt delay in each round beside the delay of the grid
that was best in the others: 1 is a learner that knows the best delay beforehand. The MLP's servers
have one core and the client another, unless `--free`: its requests cost a client as much as a
server, and left alone Linux puts both on one core or on two, for half a second each, which makes
33,000 or 58,000 answers a second of one and the same server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.models import MODELS
from benchmarks.peers import install
from benchmarks.peers.servers import Case, Server, started, triton
from tuili.bench.load.levels import Level, Settings
from tuili.bench.load.payloads import Question
from tuili.bench.load.session import Session
from tuili.bench.load.sockets import Target
from tuili.bench.report import machine
from tuili.errors import InvalidArgument, Unavailable

FACTORS = (0.5, 0.9, 1.0, 1.5, 2.0, 3.0, 5.0)
GRID_US = (0, 100, 500, 2000)
SLOW = """
import time
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        time.sleep(0.005)
        return {"OUTPUT0": inputs["INPUT0"]}
"""
SLOW_CONFIG = """
max_batch_size: 1
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] }
"""


def serve(fill) -> Server:
    """tuili over a repository that `fill` writes."""

    def start(_: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
        repository = folder / "models"
        fill(repository)
        ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", "-1"]
        command = [sys.executable, "-m", "tuili", "serve", str(repository), *ports]
        return [*command, "--log-level", "error"], {}

    return Server("tuili", (), (), start)


# ---- overload
def put_slow(repository: Path, **parameters: str) -> None:
    """The slow model, with these parameters in its configuration."""
    version = repository / "slow" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(SLOW)
    told = (
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in parameters.items()
    )
    (version.parent / "config.pbtxt").write_text(SLOW_CONFIG + "".join(told))


@contextmanager
def asking(running, model: str, inputs: dict, settings: Settings):
    """A session of requests to a model, every answer checked against the first."""
    target = Target("http", "127.0.0.1", running.http)
    until = time.monotonic() + 120.0
    while True:
        try:
            session = Session(target, Question(model), settings, inputs=inputs)
            break
        except (Unavailable, InvalidArgument):
            if time.monotonic() > until or running.process.poll() is not None:
                raise
            time.sleep(0.2)
    with session:
        yield session


def overload(options: argparse.Namespace) -> None:
    """Print the table, and keep the samples and the plot."""
    settings = Settings(warm_up_s=0.5, window_s=options.seconds, windows=1)
    inputs = {"INPUT0": np.ones((1, 16), np.float32)}
    curves: dict[str, list[Level]] = {}
    wait = {"max_wait_ms": str(options.max_wait_ms)}
    for name, more, factors in (("unbounded", {}, FACTORS[:4]), ("bounded", wait, FACTORS)):
        with tempfile.TemporaryDirectory() as folder:
            parameters = {"isolation": options.isolation, **more}
            server = serve(lambda at, parameters=parameters: put_slow(at, **parameters))
            with (
                started(server, "slow", Path(folder), "") as running,
                asking(running, "slow", inputs, settings) as session,
            ):
                capacity = statistics.median(session.closed(2).window.rate for _ in range(3))
                rounds = [
                    [session.open(capacity * factor) for factor in factors]
                    for _ in range(options.rounds if more else 1)
                ]
                curves[name] = [median_of(levels) for levels in zip(*rounds, strict=True)]
    report_overload(curves, capacity, options)


def median_of(levels: Sequence[Level]) -> Level:
    """The sample of median goodput (of an even number: the lower one of the middle)."""
    return sorted(levels, key=lambda level: level.window.rate)[(len(levels) - 1) // 2]


def report_overload(
    curves: dict[str, list[Level]], capacity: float, options: argparse.Namespace
) -> None:
    """What the issue asks: goodput at 5x against the best, p99 at most twice that at 0.9x."""
    grid = Table(title=f"capacity {capacity:.0f}/s; max_wait_ms {options.max_wait_ms:g}")
    for title in ("", "offered/s", "goodput/s", "refused/s", "p50 ms", "p99 ms"):
        grid.add_column(title, justify="right")
    for name, levels in curves.items():
        for level in levels:
            window = level.window
            grid.add_row(
                name,
                f"{level.load:.0f}",
                f"{window.rate:.0f}",
                f"{window.refused / window.seconds:.0f}",
                f"{window.percentile(50.0):.1f}",
                f"{window.percentile(99.0):.1f}",
            )
    Console().print(grid)
    bounded = curves["bounded"]
    best = max(level.window.rate for level in bounded)
    p99 = [level.window.percentile(99.0) for level in bounded]
    print(
        f"goodput at {FACTORS[-1]:g}x / best: {bounded[-1].window.rate / best:.2f}; "
        f"p99 at {FACTORS[-1]:g}x / at {FACTORS[1]:g}x: {p99[-1] / p99[1]:.2f}"
    )
    if options.json:
        kept = {name: [asdict(level) for level in levels] for name, levels in curves.items()}
        told = {"machine": machine(), "capacity": capacity, "curves": kept}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(plot(bounded, capacity))


def plot(levels: list[Level], capacity: float) -> str:
    """Goodput (share of the capacity) and p99 over offered load, as an SVG of two lines."""
    most_ms = max(level.window.percentile(99.0) for level in levels)
    lines = {
        "goodput": ("#1b6ca8", [level.window.rate / capacity / 1.2 for level in levels]),
        "p99": ("#c2410c", [level.window.percentile(99.0) / most_ms / 1.2 for level in levels]),
    }
    marks = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
        + " ".join(
            f"{60 + 500 * level.load / capacity / FACTORS[-1]:.0f},{260 - 220 * value:.0f}"
            for level, value in zip(levels, values, strict=True)
        )
        + f'"/><text x="70" y="{20 + 18 * at}" fill="{colour}">{name}</text>'
        for at, (name, (colour, values)) in enumerate(lines.items())
    ]
    ticks = [
        f'<text x="{60 + 500 * factor / FACTORS[-1]:.0f}" y="278" text-anchor="middle">'
        f"{factor:g}x</text>"
        for factor in FACTORS
    ]
    notes = (
        f'<text x="170" y="20">of {capacity:.0f}/s; full height 1.2x</text>'
        f'<text x="170" y="38">full height {1.2 * most_ms:.0f} ms</text>'
    )
    frame = '<path d="M60 40V260H570" fill="none" stroke="#666"/>'
    body = "".join((frame, *marks, *ticks, notes))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 290" font-size="12" '
        f'font-family="sans-serif">{body}</svg>\n'
    )


# ---- delays
def put_model(repository: Path, model: str, delay_us: int | None) -> None:
    """A real model; None configures nothing at all."""
    version = repository / model / "1"
    version.mkdir(parents=True)
    shutil.copy(MODELS[{"mlp": "digits_mlp"}.get(model, model)].path(), version / "model.onnx")
    if delay_us is not None:
        (version.parent / "config.pbtxt").write_text(
            "max_batch_size: 128\n"
            f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n"
        )


def question(model: str) -> dict[str, np.ndarray]:
    """One request: a digit, or a sentence of 16 tokens."""
    rng = np.random.default_rng(0)
    if model == "mlp":
        return {"X": rng.standard_normal((1, 64)).astype(np.float32)}
    tokens = rng.integers(1000, 20000, (1, 16))
    ones = np.ones((1, 16), np.int64)
    return {"input_ids": tokens, "attention_mask": ones, "token_type_ids": ones * 0}


def delays(options: argparse.Namespace) -> None:
    """Print answers per second and p99 of every way to batch."""
    models = options.models.split(",")
    numbers = [int(text) for text in options.concurrency.split(",")]
    settings = Settings(warm_up_s=options.warm_up, window_s=options.seconds, windows=1)
    samples: dict[tuple[str, str, int], list[Level]] = defaultdict(list)
    all_cores = os.sched_getaffinity(0)
    for model in models:
        apart = model == "mlp" and not options.free
        os.sched_setaffinity(0, {max(all_cores)} if apart else all_cores)
        cores = str(min(all_cores)) if apart else ""
        for at in range(options.rounds):
            for name, number, level in one_round(model, at, numbers, settings, cores):
                samples[model, name, number].append(level)
    report_delays(samples, models, numbers, options)


def one_round(
    model: str, at: int, numbers: list[int], settings: Settings, cores: str
) -> Iterator[tuple[str, int, Level]]:
    """Every way at every concurrency, by servers that are started for this round.

    A process is faster or slower than its like for as long as it lives, by where its memory lies:
    the best of a grid would be the luckiest of it, round after round.
    """
    with ExitStack() as stack:
        running: dict[str, Any] = {}
        for name, server in ways(model):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            # Triton has both models, and is asked for the first until it answers.
            first = "mlp" if name == "triton" else model
            running[name] = stack.enter_context(started(server, first, folder, cores))
        names = list(running)
        for number in numbers:
            # Nobody is always first after another load, nor always after the same one.
            for name in names[at % len(names) :] + names[: at % len(names)]:
                yield name, number, measure(name, running[name], model, number, settings)


def ways(model: str) -> list[tuple[str, Server]]:
    """Every way to batch a model."""
    found = [
        (
            "learnt" if delay is None else f"{delay} us",
            serve(lambda at, delay=delay: put_model(at, model, delay)),
        )
        for delay in (None, *GRID_US)
    ]
    if install.python("triton").exists():
        found.append(("triton", Server("triton-dyn", ("mlp", "minilm"), ("http",), with_minilm)))
    return found


def with_minilm(model: str, folder: Path, http: int, grpc: int) -> tuple[list[str], dict[str, str]]:
    """Triton with its dynamic batcher over the servers' repository, and MiniLM besides."""
    command, environment = triton("triton-dyn")(model, folder, http, grpc)
    put_model(folder / "models", "minilm", 0)
    with (folder / "models" / "minilm" / "config.pbtxt").open("a") as config:
        config.write('backend: "onnxruntime" instance_group [ { kind: KIND_CPU } ]\n')
        config.write('parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n')
    return command, environment


def measure(name: str, running: Any, model: str, number: int, settings: Settings) -> Level:
    """One way at one concurrency."""
    if name == "triton" and model == "mlp":
        with running.load(Case(model, "http", number), settings) as load:
            return load.closed(number)
    with asking(running, model, question(model), settings) as session:
        return session.closed(number)


def report_delays(samples, models, numbers, options) -> None:
    """Medians, and the learnt delay beside the best of the grid and beside Triton."""
    for model in models:
        grid = Table(title=f"{model}: answers/s, p99 ms")
        grid.add_column("")
        for number in numbers:
            grid.add_column(f"c={number}", justify="right")
        names = dict.fromkeys(name for of, name, _ in samples if of == model)
        rates = {}
        for name in names:
            row = [name]
            for number in numbers:
                levels = samples[model, name, number]
                rates[name, number] = statistics.median(level.window.rate for level in levels)
                p99 = statistics.median(level.window.percentile(99.0) for level in levels)
                row.append(f"{rates[name, number]:,.0f} {p99:.2g}")
            grid.add_row(*row)
        Console().print(grid)
        for number in numbers:
            rounds = {
                name: [level.window.rate for level in samples[model, name, number]]
                for name in ("learnt", *(f"{delay} us" for delay in GRID_US))
            }
            ratios, chosen = beside_best(rounds)
            beside = f", / triton {rates['learnt', number] / rates['triton', number]:.2f}" * (
                "triton" in names
            )
            print(
                f"{model} c={number}: learnt / best by the other rounds ({', '.join(chosen)}): "
                f"{statistics.median(ratios):.2f}, "
                f"rounds {min(ratios):.2f}-{max(ratios):.2f}{beside}"
            )
    if options.json:
        kept = {" ".join(map(str, key)): [asdict(x) for x in v] for key, v in samples.items()}
        options.json.write_text(json.dumps({"machine": machine(), "levels": kept}, indent=1) + "\n")


def beside_best(rounds: dict[str, list[float]]) -> tuple[list[float], list[str]]:
    """For each round the learnt way's rate by that of the best delay, and the delays so chosen.

    Which delay is best is said by the other rounds: the best of noisy values in the round itself
    is more than any of them, and a learner that chose it every time would seem to lose.
    """
    learnt = rounds["learnt"]
    grid = [name for name in rounds if name != "learnt"]
    ratios, chosen = [], []
    for at, rate in enumerate(learnt):
        others = [each for each in range(len(learnt)) if each != at] or [at]
        best = max(grid, key=lambda name: statistics.median(rounds[name][each] for each in others))
        ratios.append(rate / rounds[best][at])
        chosen.append(best)
    return ratios, sorted(set(chosen), key=grid.index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("overload")
    one.add_argument("--max-wait-ms", type=float, default=25.0)
    one.add_argument("--seconds", type=float, default=2.0, help="of one sample")
    one.add_argument("--rounds", type=int, default=3)
    one.add_argument("--isolation", choices=("process", "none"), default="process")
    one.add_argument("--svg", type=Path)
    one.add_argument("--json", type=Path)
    one.set_defaults(run=overload)
    two = commands.add_parser("delays")
    two.add_argument("--models", default="mlp,minilm")
    two.add_argument("--concurrency", default="8,32,128")
    two.add_argument("--rounds", type=int, default=5)
    two.add_argument("--seconds", type=float, default=1.5)
    two.add_argument("--warm-up", type=float, default=1.0, help="seconds to learn in")
    two.add_argument("--free", action="store_true", help="both cores for both, for the MLP too")
    two.add_argument("--json", type=Path)
    two.set_defaults(run=delays)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
