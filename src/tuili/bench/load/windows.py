"""What a log says: rates and percentiles of a span of time, and whether spans agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tuili.bench.load.exchange import Log, Verdict

PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Window:
    """What came of the requests of a span; times are milliseconds, of good answers only."""

    seconds: float
    answers: int
    rate: float  # good answers per second
    mean_ms: float
    percentiles_ms: dict[float, float]
    max_ms: float
    wrong: int = 0
    refused: int = 0
    lost: int = 0

    def percentile(self, share: float) -> float:
        """Milliseconds below which `share` percent of the answers came."""
        return self.percentiles_ms[share]

    @property
    def clean(self) -> bool:
        """Whether every request was answered, and rightly."""
        return not (self.wrong or self.refused or self.lost)


def summarize(log: Log, start: float, stop: float, *, by_due: bool = False) -> Window:
    """The requests that were answered (or, `by_due`, due) in a span.

    In an open loop they must be chosen by when they were due: the slowest are those that were not
    answered in time.
    """
    due, done = np.array(log.due), np.array(log.done)
    verdicts = np.array(log.verdicts, np.int8)
    when = due if by_due else done
    inside = (when >= start) & (when < stop)
    counts = {verdict: int((inside & (verdicts == verdict)).sum()) for verdict in Verdict}
    good = inside & (verdicts == Verdict.GOOD)
    latencies = (done[good] - due[good]) * 1e3
    found = np.percentile(latencies, PERCENTILES) if len(latencies) else [0.0] * len(PERCENTILES)
    return Window(
        seconds=stop - start,
        answers=counts[Verdict.GOOD],
        rate=counts[Verdict.GOOD] / (stop - start),
        mean_ms=float(latencies.mean()) if len(latencies) else 0.0,
        percentiles_ms={p: float(v) for p, v in zip(PERCENTILES, found, strict=True)},
        max_ms=float(latencies.max()) if len(latencies) else 0.0,
        wrong=counts[Verdict.WRONG],
        refused=counts[Verdict.REFUSED],
        lost=counts[Verdict.LOST],
    )


def agree(rates: Sequence[float], tolerance: float, count: int = 3) -> bool:
    """Whether the last `count` rates differ from their mean by `tolerance` of it at most."""
    last = list(rates[-count:])
    if len(last) < count:
        return False
    mean = sum(last) / count
    return mean > 0 and all(abs(rate - mean) <= tolerance * mean for rate in last)
