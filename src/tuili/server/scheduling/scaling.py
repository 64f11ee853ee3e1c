"""Scaler: how many instances a model should have, by its load now and the load expected."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Final

from tuili.server.scheduling.forecast import Forecast
from tuili.server.scheduling.gain import Gain

# A backlog is not worth an instance that has nothing to do a second later.
_LEAST_DRAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Elasticity:
    """Bounds and pace of an elastic number of instances."""

    least: int = 1
    most: int = 1
    busy: float = 0.7  # the share of their time that instances should be running
    lead_s: float = 60.0  # how far ahead the load is provided for: longer than a start takes
    patience_s: float = 60.0  # how long fewer must be enough before one goes


class Scaler:
    """Told of arrivals and of the time spent running, it says how many instances there should be.

    More come at once, by the load of the last seconds or the one expected within `lead_s`; fewer
    only after they would have been enough for `patience_s`, or where the last ones brought nothing
    (`gain.py`). Queued work counts as load: it is to be done within `lead_s`, or, if it is there at
    two looks, within the time that an instance was seen to take for its start.
    """

    def __init__(self, elasticity: Elasticity, forecast: Forecast | None = None) -> None:
        self.elasticity = elasticity
        self.forecast = forecast
        self._request_s = 0.0
        self._rate = 0.0
        self._needs: deque[tuple[float, int]] = deque()
        self._at: float | None = None
        self._gain = Gain()
        self._start_s: float | None = None
        self._waited = 0

    def started(self, seconds: float) -> None:
        """An instance that was added took so long until it could answer."""
        self._start_s = seconds

    def tick(
        self,
        arrived: int,
        run_s: float,
        requests: int,
        now: float,
        calendar: float,
        *,
        instances: int = 0,
    ) -> None:
        """Since the last tick `arrived` came, and `requests` were answered in `run_s` of runs.

        `now` is monotonic; `calendar` is the clock that the season goes by; `instances` is how many
        there have been, if that is known.
        """
        if requests:
            each = run_s / requests
            self._request_s += 0.3 * (each - self._request_s) if self._request_s else each
        if self._at is not None and now > self._at:
            rate = arrived / (now - self._at)
            self._rate += (0.5 if rate > self._rate else 0.2) * (rate - self._rate)
            if instances:
                self._gain.ran(instances, requests, run_s, now - self._at, now)
        self._at = now
        if self.forecast is not None:
            self.forecast.arrived(calendar, arrived)

    def wanted(self, waiting: int, now: float, calendar: float) -> int:
        """How many instances there should be, with `waiting` requests in the queue."""
        bounds = self.elasticity
        rate = self._rate + self._rate_of(waiting)
        if self.forecast is not None:
            rate = max(rate, self.forecast.peak(calendar + bounds.lead_s, calendar))
        need = ceil(rate * self._request_s / bounds.busy - 1e-9)
        need = min(max(need, bounds.least), bounds.most)
        self._needs.append((now, need))
        while self._needs[0][0] < now - bounds.patience_s:
            self._needs.popleft()
        wanted = max(recent for _, recent in self._needs)
        worth = self._gain.most(now)
        return wanted if worth is None else max(min(wanted, worth), bounds.least)

    def _rate_of(self, waiting: int) -> float:
        """The rate at which a backlog is to be done; what a moment brought is gone in the next."""
        lasts, self._waited = min(waiting, self._waited), waiting
        lead_s = self.elasticity.lead_s
        if self._start_s is None:
            return waiting / lead_s
        drain_s = min(max(self._start_s, _LEAST_DRAIN_S), lead_s)
        return max(waiting / lead_s, lasts / drain_s)
