"""The largest rate that keeps a promise: grow until it breaks, then bisect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tuili.bench.load.windows import Window

_KEEPING_UP: Final = 0.97  # answers per request due, below which the server falls behind


@dataclass(frozen=True, slots=True)
class Promise:
    """`percentile` of the answers within `milliseconds`, all of them right."""

    percentile: float
    milliseconds: float

    def kept(self, rate: float, window: Window) -> bool:
        """Whether a load of `rate` a second, with this outcome, kept the promise."""
        return (
            window.clean
            and window.rate >= _KEEPING_UP * rate
            and window.percentile(self.percentile) <= self.milliseconds
        )


def largest_rate(
    measure: Callable[[float], Window], promise: Promise, first: float, precision: float = 0.05
) -> tuple[float, list[tuple[float, Window]]]:
    """The largest rate found that keeps the promise (0.0: none), and everything tried.

    The result is within `precision` of a rate that breaks it. A rate that breaks the promise once
    is tried again, since a busy machine can break any.
    """
    tried: list[tuple[float, Window]] = []

    def kept(rate: float) -> bool:
        for _ in range(2):
            window = measure(rate)
            tried.append((rate, window))
            if promise.kept(rate, window):
                return True
        return False

    good, bad = 0.0, 0.0
    rate = first
    while not bad:
        if kept(rate):
            good, rate = rate, rate * 2
        else:
            bad = rate
    while not good and bad > 1.0:
        rate = bad / 2
        if kept(rate):
            good = rate
        else:
            bad = rate
    while good and bad > good * (1 + precision):
        rate = (good + bad) / 2
        if kept(rate):
            good = rate
        else:
            bad = rate
    return good, tried
