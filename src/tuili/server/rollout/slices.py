"""Slices: every second's counts of two variants, turned into overdispersion per kind of event."""

from __future__ import annotations

from typing import Final

import numpy as np

from tuili.server.rollout import buckets
from tuili.server.rollout.dispersion import Dispersion
from tuili.server.rollout.tally import Tally

# A kind of event is an error, or a duration above the bound that held this share so far.
SHARES: Final = {"latency_p50": 0.5, "latency_p99": 0.99}
ERRORS: Final = "error_rate"


class Slices:
    """What one candidate and the stable variant did since the last slice ended."""

    def __init__(self) -> None:
        self.dispersion = {name: Dispersion() for name in (ERRORS, *SHARES)}
        self._seen = ((0, 0), (0, 0))
        self._beyond: dict[str, tuple[int, int]] = {}
        self._bounds: dict[str, int] = {}

    def end(self, stable: Tally, candidate: Tally) -> None:
        """Close a slice. Bounds of durations are those of the slices before it."""
        now = tuple((each.requests, each.errors) for each in (stable, candidate))
        (n0, k0), (n1, k1) = self._seen
        trials = (now[0][0] - n0, now[1][0] - n1)
        self.dispersion[ERRORS].slice_ended((now[0][1] - k0, now[1][1] - k1), trials)
        good = (trials[0] - (now[0][1] - k0), trials[1] - (now[1][1] - k1))
        histograms = [np.asarray(each.durations["latency"]) for each in (stable, candidate)]
        for name, share in SHARES.items():
            self._end_durations(name, share, histograms, good)
        self._seen = (now[0], now[1])

    def _end_durations(
        self, name: str, share: float, histograms: list[np.ndarray], good: tuple[int, int]
    ) -> None:
        bound = self._bounds.get(name)
        if bound is not None:
            beyond = (int(histograms[0][bound:].sum()), int(histograms[1][bound:].sum()))
            before = self._beyond[name]
            events = (beyond[0] - before[0], beyond[1] - before[1])
            self.dispersion[name].slice_ended(events, good)
        bound = buckets.quantile(histograms[0] + histograms[1], share)
        self._bounds[name] = bound
        self._beyond[name] = (int(histograms[0][bound:].sum()), int(histograms[1][bound:].sum()))
