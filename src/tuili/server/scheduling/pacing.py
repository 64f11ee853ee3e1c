"""Pace: how long a batch waits for more requests when nobody configured a delay.

Theory of operation
- Waiting only pays when somebody is still to come. `Pace` remembers how many requests were under
  way at once lately; while fewer are, others are expected, and a batch may wait for them; once all
  are here it leaves at once. So a single client never waits.
- How long is found by trying: epochs with the delay in use take turns with epochs of another one,
  and the one with the lower mean latency is kept. By Little's law that is also the one with the
  higher throughput when clients wait for their answers before they ask again. Delays are shares of
  the measured run time; all are tried in turn, as one that is too short to see anybody come looks
  useless. A verdict is questioned less and less often while it stands, at once when as many more or
  fewer requests are under way, and sooner when only the latency changes, which machines do by
  themselves.
- A pause is no verdict: after it the delay is what it was.
- With a latency target, no delay is tried that would not leave room for two runs.
"""

from __future__ import annotations

from typing import Final

# Delays that are tried, as shares of a run's time.
FRACTIONS: Final = (0.0, 0.5, 0.1, 1.0, 0.25, 2.0)
_EPOCH_REQUESTS: Final = 96
_EPOCH_S: Final = 0.01
_ROUNDS: Final = 3  # pairs of epochs per comparison
_BETTER: Final = 0.98
_MOST_REST: Final = 512  # epochs between comparisons: each costs some, and five follow each other
_DRIFT: Final = 1.3
_STRANGE: Final = 3  # epochs in a row that make a drift: one alone is noise
_HOPELESS: Final = 1.25  # of the usual latency, in the first epoch on trial
_WORSE: Final = 1.1  # of the one in use, after a pair of epochs
_CROWD: Final = 1.5  # so many times as many under way are another load
_SOONER: Final = 8
# Below this share of the time spent running, nobody queues and waiting only costs.
_BUSY: Final = 0.4
_FADE: Final = 0.9  # of the remembered number of requests under way, per epoch


class Pace:
    """Learns a delay from latencies; told the time, it says whether a batch should wait."""

    def __init__(self, target_s: float = 0.0) -> None:
        self.running = 0  # requests that left and are not answered
        self.delay_s = 0.0
        self._target_s = target_s
        self._run_s = 0.0
        self._most = 0.0
        self._level = 0
        self._crowd = 0.0  # as many were under way when the verdict in force was new
        self._trial: int | None = None
        self._next = 0
        self._sums = [0.0, 0.0]  # of the level in use, and of the one on trial
        self._round = 0
        self._rest = 1
        self._rested = 0
        self._usual_s = 0.0
        self._strange = 0
        self._count = 0
        self._latency_s = 0.0
        self._busy_s = 0.0
        self._epoch_from = 0.0
        self._peak = 0

    def holds(self, waiting: int, since: float, now: float) -> bool:
        """Whether `waiting` requests should wait for more, having had a free instance `since`."""
        return (
            self.delay_s > 0
            and waiting + self.running < round(self._most)
            and now < since + self.delay_s
        )

    def started(self, requests: int) -> None:
        """A batch of `requests` left."""
        self.running += requests

    def answered(
        self, requests: int, latency_s: float, run_s: float, now: float, waiting: int
    ) -> None:
        """A batch of `requests` ended, `waiting` others wait.

        `latency_s` is the sum of their times since they arrived.
        """
        # Between two ends of batches there are ever more under way: now are the most.
        self._peak = max(self._peak, waiting + self.running)
        self.running -= requests
        self._run_s += 0.1 * (run_s - self._run_s) if self._run_s else run_s
        self._count += requests
        self._latency_s += latency_s
        self._busy_s += run_s
        if self._count >= _EPOCH_REQUESTS and now - self._epoch_from >= _EPOCH_S:
            self._end_epoch(now - self._epoch_from)
            self._count, self._latency_s, self._busy_s, self._epoch_from = 0, 0.0, 0.0, now

    def _end_epoch(self, elapsed_s: float) -> None:
        mean_s = self._latency_s / self._count
        self._most = max(float(self._peak), self._most * _FADE)
        self._peak = 0
        if self._most < 1.5 or self._busy_s < _BUSY * elapsed_s:
            # One client at a time, or hardly any: nobody to wait for.
            self.delay_s, self._trial, self._usual_s = 0.0, None, 0.0
        elif self._trial is None:
            self._set(self._level)
            self._rest_epoch(mean_s)
        else:
            self._trial_epoch(mean_s)

    def _rest_epoch(self, mean_s: float) -> None:
        usual_s = self._usual_s or mean_s
        self._strange += 1
        if usual_s / _DRIFT < mean_s < usual_s * _DRIFT:
            self._strange = 0
            self._usual_s = usual_s + 0.25 * (mean_s - usual_s)
        elif self._strange == _STRANGE:
            self._rest, self._strange, self._usual_s = max(self._rest // _SOONER, 1), 0, mean_s
        if not self._crowd / _CROWD < self._most < self._crowd * _CROWD:
            # The load has changed: what was learnt may not hold.
            self._rest, self._crowd = 1, self._most
        self._rested += 1
        if self._rested >= self._rest or self._next % len(FRACTIONS):
            self._rested = 0
            self._begin_trial()

    def _begin_trial(self) -> None:
        wanted = self._next % len(FRACTIONS)
        self._next += 1
        if wanted == self._level or not self._within_target(wanted):
            return
        self._trial, self._round = wanted, 0
        self._sums = [0.0, 0.0]
        self._set(wanted, keep=True)

    def _trial_epoch(self, mean_s: float) -> None:
        assert self._trial is not None
        side = 1 - self._round % 2  # the one on trial goes first
        self._sums[side] += mean_s
        self._round += 1
        hopeless = self._round == 1 and self._usual_s and mean_s > self._usual_s * _HOPELESS
        if self._round == 2 and self._sums[1] > self._sums[0] * _WORSE:
            hopeless = True
        if self._round < 2 * _ROUNDS and not hopeless:
            self._set(self._trial if self._round % 2 == 0 else self._level, keep=True)
            return
        if not hopeless and self._sums[1] < self._sums[0] * _BETTER:
            self._level, self._rest, self._usual_s = self._trial, 1, 0.0
        else:
            self._rest = min(self._rest * 2, _MOST_REST)
        self._trial = None
        self._set(self._level)

    def _set(self, level: int, *, keep: bool = False) -> None:
        """Use the delay of a level; `keep` the one in force."""
        if not keep:
            self._level = level
        self.delay_s = FRACTIONS[level] * self._run_s

    def _within_target(self, level: int) -> bool:
        """Whether a delay leaves room for two runs within the target."""
        room_s = self._target_s - 2 * self._run_s
        return not self._target_s or FRACTIONS[level] * self._run_s <= max(room_s, 0.0)
