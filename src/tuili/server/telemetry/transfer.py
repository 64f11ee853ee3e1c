"""Counts: what one process counted of a model version, on its way to the statistics of another."""

from __future__ import annotations

from typing import Final

import msgspec

from tuili.server.telemetry.histogram import Histogram
from tuili.server.telemetry.statistics import BatchStatistics, Duration, Statistics

_NUMBERS: Final = ("inference_count", "execution_count", "degraded")
_DURATIONS: Final = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    "cache_miss",
)  # fmt: skip
_OF_BATCH: Final = ("input", "infer", "output")
_HISTOGRAMS: Final = ("request_ns", "queue_ns", "infer_ns")


class Counts(msgspec.Struct, array_like=True):
    """What was counted since the last time; durations are (count, ns), of batches by their rows."""

    model: str
    version: str
    pending: int
    last_inference_ms: int
    numbers: dict[str, int]
    durations: dict[str, tuple[int, int]]
    failures: dict[str, int]
    left: dict[str, int]
    batches: dict[int, dict[str, tuple[int, int]]]
    histograms: dict[str, tuple[int, dict[int, int]]]


def take(statistics: Statistics, pending: int) -> Counts:
    """What was counted, which then begins anew at nothing."""
    statistics.settle()
    counts = Counts(
        statistics.model,
        statistics.version,
        pending,
        statistics.last_inference_ms,
        {name: getattr(statistics, name) for name in _NUMBERS},
        _pairs(statistics, _DURATIONS),
        {reason: number for reason, number in statistics.failures.items() if number},
        dict(statistics.left),
        {rows: _pairs(batch, _OF_BATCH) for rows, batch in statistics.batches.items()},
        {name: _histogram(statistics, name).sparse() for name in _HISTOGRAMS},
    )
    statistics.clear()
    return counts


def add(statistics: Statistics, counts: Counts) -> None:
    """Count what another process counted."""
    statistics.last_inference_ms = max(statistics.last_inference_ms, counts.last_inference_ms)
    for name, number in counts.numbers.items():
        setattr(statistics, name, getattr(statistics, name) + number)
    _add_pairs(statistics, counts.durations)
    for reason, number in counts.failures.items():
        statistics.failures[reason] += number
    for reason, number in counts.left.items():
        statistics.left[reason] = statistics.left.get(reason, 0) + number
    for rows, pairs in counts.batches.items():
        _add_pairs(statistics.batches.setdefault(rows, BatchStatistics(rows)), pairs)
    for name, (sum_ns, buckets) in counts.histograms.items():
        _histogram(statistics, name).add(sum_ns, buckets)


def _pairs(
    owner: Statistics | BatchStatistics, names: tuple[str, ...]
) -> dict[str, tuple[int, int]]:
    found = ((name, _duration(owner, name)) for name in names)
    return {name: (each.count, each.ns) for name, each in found if each.count}


def _add_pairs(owner: Statistics | BatchStatistics, pairs: dict[str, tuple[int, int]]) -> None:
    for name, (count, ns) in pairs.items():
        _duration(owner, name).add(ns, count)


def _duration(owner: Statistics | BatchStatistics, name: str) -> Duration:
    return getattr(owner, name)


def _histogram(statistics: Statistics, name: str) -> Histogram:
    return getattr(statistics, name)
