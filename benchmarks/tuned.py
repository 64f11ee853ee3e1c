"""Models compiled by the cost model beside the same models compiled by a tuning record.

`python -m benchmarks.tuned [MODEL]...`: tunes each model first (`--seconds`, 0 to use the record as
it is), then lets both turn about on one thread; prints the medians and minima, and the ratio of
runs next to each other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import tuili
from benchmarks.models import MODELS, RealModel
from tuili.bench.tune.tuner import tune
from tuili.codegen.tuning import default_path
from tuili.compiler import Options

NO_RECORD = Path("/dev/null")


def main() -> None:
    """Measure the models named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet50", "ppocr_rec", "minilm"])
    parser.add_argument("--seconds", type=float, default=25.0, help="of tuning for each model")
    parser.add_argument("--tuning", type=Path, default=default_path())
    parser.add_argument("--run-seconds", type=float, default=20.0, help="of the comparison")
    options = parser.parse_args()
    for name in options.models:
        model, shapes = MODELS[name], _shapes(MODELS[name])
        if options.seconds:
            tune(model.path(), Options(shapes=shapes, tuning=options.tuning), {}, options.seconds)
        print(_compared(model, shapes, options.tuning, options.run_seconds), flush=True)


def _shapes(model: RealModel) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in model.inputs(model.sizes[0]).items()}


def _compared(
    model: RealModel, shapes: dict[str, tuple[int, ...]], record: Path, seconds: float
) -> str:
    feeds = model.inputs(model.sizes[0])
    runs: list[Callable[[], object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, tuning in (("cost", NO_RECORD), ("clock", record)):
            place = Path(folder) / f"{name}.tuili"
            made = tuili.compile(model.path(), place, shapes=shapes, tuning=tuning)
            loaded = tuili.load(made.path, threads=1)
            runs.append(lambda loaded=loaded: loaded.run(feeds))
    cost, clock = _turn_about(runs, seconds)
    ratio = median(a / b for a, b in zip(cost, clock, strict=True))
    return (
        f"{model.name}: by the cost model {median(cost):.3f} ms (least {min(cost):.3f}), "
        f"by the clock {median(clock):.3f} ms (least {min(clock):.3f}), ratio {ratio:.3f} "
        f"({min(cost) / min(clock):.3f})"
    )


def _turn_about(runs: list[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Milliseconds of each; who goes first changes every round."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        order = range(len(runs)) if turn % 2 else reversed(range(len(runs)))
        for place in order:
            runs[place]()  # warms what the other has evicted
            start = time.perf_counter()
            runs[place]()
            times[place].append(1000 * (time.perf_counter() - start))
        turn += 1
    return times


if __name__ == "__main__":
    main()
