"""Overdispersion: how much more two variants' counts scatter than independent requests would.

Requests that share a batch, a pause or a user fail and wait together. Evidence that takes them for
independent is too sure of itself. So every second's bad events are compared with the share that
each variant should have had of them (hypergeometric, given the second's total: what hits both
variants alike cancels out), and the variance of these residuals is what counts are divided by, as
quasi-likelihood does (Wedderburn 1974; McCullagh, Nelder, "Generalized Linear Models", ch. 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

ENOUGH_SLICES: Final = 10
_CAUTION: Final = -1.64  # standard deviations: an estimate from few slices may well be too low
Pairs = tuple[Any, Any]


def residual_of(events: Pairs, trials: Pairs) -> Any:
    """The candidate's events less its share of all, in standard deviations; arrays or numbers."""
    (k0, k1), (n0, n1) = events, trials
    bad, both = k0 + k1, n0 + n1
    expected = bad * n1 / both
    variance = expected * n0 / both * (both - bad) / (both - 1)
    return (k1 - expected) / np.sqrt(variance)


def factor_of(slices: Any, total: Any, squares: Any, largest: Any) -> Any:
    """The variance of residuals, estimated with caution, at least 1; arrays or numbers.

    It is divided by a low quantile of chi-square over its degrees of freedom (Wilson, Hilferty
    1931). While events are too rare for an estimate, all events of a slice count as one.
    """
    freedom = np.maximum(slices - 1, 1)
    variance = (squares - total * total / np.maximum(slices, 1)) / freedom
    spread = 2 / (9 * freedom)
    estimate = variance / (1 - spread + _CAUTION * np.sqrt(spread)) ** 3
    return np.maximum(np.where(slices >= ENOUGH_SLICES, estimate, largest), 1.0)


@dataclass(slots=True)
class Dispersion:
    """The residuals of the slices so far, of one kind of event; adds up over servers."""

    slices: int = 0
    total: float = 0.0
    squares: float = 0.0
    largest: int = 0  # number of events of one variant in one slice

    def slice_ended(self, events: tuple[int, int], trials: tuple[int, int]) -> None:
        """One slice of time: bad events and requests of the stable variant and of the candidate."""
        bad, both = sum(events), sum(trials)
        if both < 2 or not all(trials) or bad in (0, both):
            return
        residual = float(residual_of(events, trials))
        self.slices += 1
        self.total += residual
        self.squares += residual * residual
        self.largest = max(self.largest, *events)

    def add(self, other: Dispersion) -> None:
        """Count another server's slices too."""
        self.slices += other.slices
        self.total += other.total
        self.squares += other.squares
        self.largest = max(self.largest, other.largest)

    def factor(self) -> float:
        """What counts are to be divided by: 1 for independent requests."""
        return float(factor_of(self.slices, self.total, self.squares, self.largest))

    def json(self) -> list[float]:
        """For the shared store."""
        return [self.slices, self.total, self.squares, self.largest]

    @classmethod
    def from_json(cls, found: list[float]) -> Dispersion:
        """What another server wrote."""
        return cls(int(found[0]), found[1], found[2], int(found[3]))
