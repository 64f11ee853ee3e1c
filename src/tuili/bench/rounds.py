"""Times engines in interleaved rounds, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from tuili.bench.alone import Costs, costs
from tuili.bench.engines import Answer, Answers, Feeds, Loaded, Settings, load_engine
from tuili.bench.offline import callers, seconds_an_answer
from tuili.errors import TuiliError

OWN = "tuili"
PERCENTILES = (50, 90, 99)
ROUND_S = 0.02  # short models are repeated until a round is this long
PAUSE_S = 0.1  # with threads: those of the engine before spin for a while, on our cores


@dataclass(frozen=True, slots=True)
class Timing:
    """One engine on one model: milliseconds of an answer in each round, and of getting ready.

    `percentiles_ms` are of single calls, those of all rounds together; offline there are none.
    """

    engine: str
    rounds_ms: list[float]
    load_ms: float
    compile_ms: float
    difference: float  # from the reference answers, relative to their largest magnitude
    percentiles_ms: dict[int, float] = field(default_factory=dict[int, float])
    costs: Costs | None = None

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
    *,
    with_costs: bool = False,
) -> Comparison:
    """Load all engines, check that they agree, then time them turn about.

    `with_costs` also measures each alone in a process; see `Costs`.
    """
    failures: dict[str, str] = {}
    ready = _load(engines, model, feeds, settings, failures)
    differences = _differences(ready)
    loaded = _agreeing(ready, differences, settings, failures)
    streams = _offline(loaded, settings, failures) if settings.is_offline else _single(loaded)
    pause_s = PAUSE_S if settings.threads > 1 else 0.0
    milliseconds = _turn_about([stream for _, stream in streams], rounds, pause_s)
    alone = _costs(loaded, model, feeds, settings, failures) if with_costs else {}
    timings = [
        Timing(
            each.engine,
            ms,
            1000 * each.load_s,
            1000 * each.compile_s,
            differences[each.engine],
            _percentiles(stream),
            alone.get(each.engine),
        )
        for (each, stream), ms in zip(streams, milliseconds, strict=True)
    ]
    shapes = {key: tuple(value.shape) for key, value in feeds.items()}
    return Comparison(name or model.stem, shapes, timings, failures)


def _load(
    engines: Sequence[str],
    model: Path,
    feeds: Feeds,
    settings: Settings,
    failures: dict[str, str],
) -> list[Loaded]:
    """Those that load the model; what the others say is among the failures."""
    loaded: list[Loaded] = []
    for engine in engines:
        try:
            loaded.append(load_engine(engine, model, feeds, settings))
        # The others still have something to show.
        except (TuiliError, RuntimeError, ImportError) as error:
            failures[engine] = str(error)
    return loaded


def _differences(loaded: Sequence[Loaded]) -> dict[str, float]:
    """How far each engine is from the first that is not ours."""
    answers = {each.engine: [np.array(a) for a in each.answer()] for each in loaded}
    reference = next((answers[e.engine] for e in loaded if e.engine != OWN), None)
    return {
        name: difference(found, reference) if reference else 0.0 for name, found in answers.items()
    }


def _agreeing(
    loaded: Sequence[Loaded],
    differences: Mapping[str, float],
    settings: Settings,
    failures: dict[str, str],
) -> list[Loaded]:
    """Those whose answers are right: the time of a wrong one says nothing."""
    wrong = {name: off for name, off in differences.items() if off > settings.most_difference}
    failures.update({name: f"wrong answers, off by {off:.2g}" for name, off in wrong.items()})
    return [each for each in loaded if each.engine not in wrong]


def _costs(
    loaded: Sequence[Loaded],
    model: Path,
    feeds: Feeds,
    settings: Settings,
    failures: dict[str, str],
) -> dict[str, Costs]:
    """What each costs alone; one that fails there keeps its times."""
    found: dict[str, Costs] = {}
    for each in loaded:
        try:
            found[each.engine] = costs(each.engine, each.file or model, feeds, settings)
        except TuiliError as error:
            failures[each.engine] = str(error)
    return found


def _single(loaded: Sequence[Loaded]) -> list[tuple[Loaded, _Round]]:
    return [(each, _Stream(each.answer)) for each in loaded]


def _offline(
    loaded: Sequence[Loaded], settings: Settings, failures: dict[str, str]
) -> list[tuple[Loaded, _Round]]:
    """Those that can be asked by many at once; the others fail."""
    found: list[tuple[Loaded, _Round]] = []
    for each in loaded:
        try:
            found.append((each, _AtOnce(callers(each, settings.threads))))
        except TuiliError as error:
            failures[each.engine] = str(error)
    return found


def _percentiles(stream: _Round) -> dict[int, float]:
    if not isinstance(stream, _Stream):
        return {}
    found = np.percentile(np.array(stream.calls_s) * 1000, PERCENTILES)
    return dict(zip(PERCENTILES, map(float, found), strict=True))


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
    """Milliseconds of each call in every round."""
    return _turn_about([_Stream(call) for call in calls], rounds, pause_s)


class _Round(Protocol):
    """What is measured in turn."""

    def wake(self) -> object:
        """Start its own threads, which those of another may have kept from the cores."""
        ...

    def seconds(self) -> float:
        """An answer in one round."""
        ...


class _Stream:
    """One call after the other, short ones many times a round; `calls_s` keeps every one."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.wake = call
        self.calls_s: list[float] = []
        once = min(self._run(1) for _ in range(3))
        self._repeats = max(1, round(ROUND_S / max(once, 1e-6)))
        self.calls_s.clear()

    def seconds(self) -> float:
        """The mean of a round."""
        return self._run(self._repeats)

    def _run(self, repeats: int) -> float:
        clock, call = time.perf_counter, self.wake
        stamps = [clock()]
        for _ in range(repeats):
            call()
            stamps.append(clock())
        self.calls_s += [end - start for start, end in pairwise(stamps)]
        return (stamps[-1] - stamps[0]) / repeats


class _AtOnce:
    """As many calls at once as there are threads."""

    def __init__(self, calls: Sequence[Answer]) -> None:
        self._calls = calls
        self.wake = calls[0]

    def seconds(self) -> float:
        """The time of a round over its answers."""
        return seconds_an_answer(self._calls)


def _turn_about(measured: Sequence[_Round], rounds: int, pause_s: float) -> list[list[float]]:
    milliseconds: list[list[float]] = [[] for _ in measured]
    for turn in range(rounds):
        for step in range(len(measured)):
            index = (turn + step) % len(measured)  # nobody always goes first
            if pause_s:
                time.sleep(pause_s)
                measured[index].wake()  # untimed
            milliseconds[index].append(1000 * measured[index].seconds())
    return milliseconds
