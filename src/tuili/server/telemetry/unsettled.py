"""Unsettled: runs and answers that are counted once somebody asks, or there are many.

To count a run takes longer than a tiny model's run itself; many at a time are counted by numpy.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_MOST_RUNS: Final = 1024
_MOST_ANSWERS: Final = 8192
_RUN: Final = 6
_GROUP: Final = 3


class SizeRuns(NamedTuple):
    """All runs of one size: how many, for how many requests, and what they took, in ns.

    `times` are those of joining, running and splitting; `charged` the same, each as often as its
    run had requests.
    """

    rows: int
    runs: int
    requests: int
    blank: int
    times: tuple[int, int, int]
    charged: tuple[int, int, int]


class Unsettled:
    """What was noted since it was counted last."""

    __slots__ = ("_arrived", "_groups", "_left", "_runs")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._runs = array("q")
        self._left: list[str] = []
        self._groups = array("q")
        self._arrived = array("q")

    @property
    def many(self) -> bool:
        """Whether it is time to count."""
        return len(self._left) >= _MOST_RUNS or len(self._arrived) >= _MOST_ANSWERS

    def note_run(
        self, rows: int, requests: int, blank: int, times_ns: tuple[int, int, int], left: str
    ) -> None:
        """One run of `rows` rows, `blank` of them nobody's."""
        self._runs.extend((rows, requests, blank, *times_ns))
        self._left.append(left)

    def note_answers(self, arrived_ns: list[int], started_ns: int, now_ns: int) -> None:
        """Requests that arrived at these moments were answered by one run."""
        self._groups.extend((len(arrived_ns), started_ns, now_ns))
        self._arrived.extend(arrived_ns)

    def take(self) -> Taken:
        """What was noted, which is then forgotten."""
        taken = Taken(
            np.frombuffer(self._runs, np.int64).reshape(-1, _RUN),
            Counter(self._left),
            np.frombuffer(self._groups, np.int64).reshape(-1, _GROUP),
            np.frombuffer(self._arrived, np.int64),
        )
        self._clear()
        return taken

    def __bool__(self) -> bool:
        return bool(self._left or self._groups)


class Taken(NamedTuple):
    """What was noted, in columns."""

    runs: Numbers
    left: Counter[str]
    groups: Numbers
    arrived: Numbers

    def sizes(self) -> Iterator[SizeRuns]:
        """The runs of each size."""
        for rows in np.unique(self.runs[:, 0]).tolist():
            same = self.runs[self.runs[:, 0] == rows]
            times, requests = same[:, 3:], same[:, 1]
            yield SizeRuns(
                rows,
                len(same),
                int(requests.sum()),
                int(same[:, 2].sum()),
                tuple(times.sum(0).tolist()),
                tuple((requests @ times).tolist()),
            )

    def waits(self) -> tuple[Numbers, Numbers]:
        """How long each request waited for its run, and for its answer."""
        counts, started, now = self.groups.T
        return (
            np.repeat(started, counts) - self.arrived,
            np.repeat(now, counts) - self.arrived,
        )
