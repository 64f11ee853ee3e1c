"""Tally: what was seen of one variant during one step; adds up over servers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from tuili.server.rollout import buckets

DURATIONS: Final = ("latency", "queue", "compute")
_RECENT: Final = 20
_MASK: Final = (1 << _RECENT) - 1
_COUNTERS: Final = (
    "requests", "errors", "nans", "checked", "crashes", "units", "compared", "differing", "shed",
)  # fmt: skip


def _histograms() -> dict[str, list[int]]:
    return {name: [0] * buckets.SIZE for name in DURATIONS}


@dataclass(slots=True)
class Tally:
    """Counts of one variant.

    `units` are what the split deals out: users, sequences or single requests. `checked` answers
    were looked through for NaN, `compared` ones were held against the stable variant's (shadow).
    """

    requests: int = 0
    errors: int = 0
    nans: int = 0
    checked: int = 0
    crashes: int = 0
    units: int = 0
    compared: int = 0
    differing: int = 0
    shed: int = 0
    durations: dict[str, list[int]] = field(default_factory=_histograms)
    # Of every feedback name: the sum of values in [0, 1], and how many.
    feedback: dict[str, tuple[float, int]] = field(default_factory=dict[str, "tuple[float, int]"])
    max_abs: float = 0.0
    max_rel: float = 0.0
    divergence: float = 0.0  # the sum over compared answers
    recent: int = 0  # the last outcomes, one bit each, 1 for an error
    note: str = ""  # the last error, in words

    def answered(self, duration_ns: int) -> None:
        """A request was answered well."""
        self.requests += 1
        self.recent = self.recent << 1 & _MASK
        self.durations["latency"][buckets.bucket_of(duration_ns)] += 1

    def took(self, queued_ns: int, total_ns: int) -> None:
        """The parts of an answer's time: in the queue, and from there to its end."""
        self.durations["queue"][buckets.bucket_of(queued_ns)] += 1
        self.durations["compute"][buckets.bucket_of(total_ns - queued_ns)] += 1

    def failed(self, note: str) -> None:
        """A request was not answered well, and it was the variant's fault."""
        self.requests += 1
        self.errors += 1
        self.recent = (self.recent << 1 | 1) & _MASK
        self.note = note

    def rate_feedback(self, name: str, value: float) -> None:
        """A value in [0, 1] that a client gave an answer."""
        total, count = self.feedback.get(name, (0.0, 0))
        self.feedback[name] = (total + value, count + 1)

    def recent_errors(self) -> int:
        """Errors among the last twenty requests."""
        return self.recent.bit_count()

    def json(self) -> dict[str, Any]:
        """Everything, for the shared store."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _COUNTERS}
        found["durations"] = {k: buckets.sparse(v) for k, v in self.durations.items()}
        found["feedback"] = {name: list(pair) for name, pair in self.feedback.items()}
        found |= {
            "max_abs": _finite(self.max_abs),
            "max_rel": _finite(self.max_rel),
            "divergence": _finite(self.divergence),
            "recent": self.recent,
            "note": self.note,
        }
        return found

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Tally:
        """The tally that another server wrote."""
        tally = cls()
        for name in _COUNTERS:
            setattr(tally, name, int(found[name]))
        tally.durations = {name: buckets.dense(found["durations"][name]) for name in DURATIONS}
        tally.feedback = {name: (pair[0], pair[1]) for name, pair in found["feedback"].items()}
        tally.max_abs, tally.max_rel = found["max_abs"], found["max_rel"]
        tally.divergence, tally.recent = found["divergence"], found["recent"]
        tally.note = found["note"]
        return tally

    def add(self, other: Tally) -> None:
        """Count what another server saw too."""
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, counts in other.durations.items():
            mine = self.durations[name]
            self.durations[name] = [a + b for a, b in zip(mine, counts, strict=True)]
        for name, (total, count) in other.feedback.items():
            mine_total, mine_count = self.feedback.get(name, (0.0, 0))
            self.feedback[name] = (mine_total + total, mine_count + count)
        self.max_abs = max(self.max_abs, other.max_abs)
        self.max_rel = max(self.max_rel, other.max_rel)
        self.divergence += other.divergence
        # The worse of the two: a burst on one server is a burst.
        self.recent = max(self.recent, other.recent, key=int.bit_count)
        self.note = self.note or other.note


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 1e300
