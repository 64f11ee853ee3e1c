"""Times engines in interleaved rounds, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from tuili.bench.engines import Answers, Feeds, Loaded, Settings, load_engine
from tuili.errors import TuiliError

OWN = "tuili"
ROUND_S = 0.02  # short models are repeated until a round is this long
PAUSE_S = 0.1  # with threads: those of the engine before spin for a while, on our cores


@dataclass(frozen=True, slots=True)
class Timing:
    """One engine on one model: milliseconds of each round, and of getting ready."""

    engine: str
    rounds_ms: list[float]
    load_ms: float
    compile_ms: float
    difference: float  # from the reference answers, relative to their largest magnitude

    @property
    def median_ms(self) -> float:
        """The middle round."""
        return median(self.rounds_ms)

    @property
    def min_ms(self) -> float:
        """The best round."""
        return min(self.rounds_ms)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All engines on one model and one set of input shapes."""

    model: str
    shapes: dict[str, tuple[int, ...]]
    timings: list[Timing]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def best_peer(self) -> Timing | None:
        """The fastest engine that is not ours, by the median."""
        peers = [timing for timing in self.timings if timing.engine != OWN]
        return min(peers, key=lambda timing: timing.median_ms, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times faster tuili is than the best peer; below 1 it is slower."""
        own = next((timing for timing in self.timings if timing.engine == OWN), None)
        peer = self.best_peer
        return peer.median_ms / own.median_ms if own and peer else None


def compare(
    model: Path,
    feeds: Feeds,
    engines: Sequence[str],
    settings: Settings,
    rounds: int = 20,
    name: str = "",
) -> Comparison:
    """Load all engines, check that they agree, then time them turn about."""
    loaded: list[Loaded] = []
    failures: dict[str, str] = {}
    for engine in engines:
        try:
            loaded.append(load_engine(engine, model, feeds, settings))
        except (TuiliError, RuntimeError) as error:  # the others still have something to show
            failures[engine] = str(error)
    answers = {each.engine: [np.array(a) for a in each.answer()] for each in loaded}
    reference = next((answers[e.engine] for e in loaded if e.engine != OWN), None)
    differences = {
        name: difference(found, reference) if reference else 0.0 for name, found in answers.items()
    }
    for each in list(loaded):
        if differences[each.engine] > settings.most_difference:
            failures[each.engine] = f"wrong answers, off by {differences[each.engine]:.2g}"
            loaded.remove(each)
    pause_s = PAUSE_S if settings.threads > 1 else 0.0
    milliseconds = interleaved([each.answer for each in loaded], rounds, pause_s)
    timings = [
        Timing(
            each.engine,
            ms,
            1000 * each.load_s,
            1000 * each.compile_s,
            differences[each.engine],
        )
        for each, ms in zip(loaded, milliseconds, strict=True)
    ]
    shapes = {key: tuple(value.shape) for key, value in feeds.items()}
    return Comparison(name or model.stem, shapes, timings, failures)


def difference(found: Answers, expected: Answers) -> float:
    """The largest absolute difference, relative to the largest magnitude of each output.

    Outputs that are no numbers (text, dictionaries) are not compared.
    """
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if not _are_numbers(a) or not _are_numbers(b):
            continue
        if a.shape != b.shape:
            return math.inf
        if not np.isfinite(a).all() and np.isfinite(b).all():
            return math.inf
        if a.size:
            scale = float(np.abs(b).max()) or 1.0
            worst = max(worst, float(np.abs(a.astype(np.float64) - b).max()) / scale)
    return worst


def _are_numbers(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind not in "OUST"


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean that treats twice as fast and half as fast alike."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def interleaved(
    calls: Sequence[Callable[[], object]], rounds: int, pause_s: float = 0.0
) -> list[list[float]]:
    repeats = [_repeats(call) for call in calls]
    milliseconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for step in range(len(calls)):
            index = (turn + step) % len(calls)  # nobody always goes first
            if pause_s:
                time.sleep(pause_s)
                calls[index]()  # wakes its own threads, untimed
            milliseconds[index].append(1000 * _seconds(calls[index], repeats[index]))
    return milliseconds


def _repeats(call: Callable[[], object]) -> int:
    once = min(_seconds(call, 1) for _ in range(3))
    return max(1, round(ROUND_S / max(once, 1e-6)))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
