"""Metrics that Python models make themselves: Triton's custom metrics.

A family is there as long as a model holds it, and so is each of its metrics. Holders are counted by
owner, a model host, as what a host that died held goes with it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Final

from tuili.errors import InvalidArgument, NotFound, Unsupported
from tuili.server.telemetry.prometheus import FAMILIES, escape

Labels = tuple[tuple[str, str], ...]

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(slots=True)
class _Metric:
    """One value of a family, or the counts of a histogram's buckets."""

    holders: Counter[int] = field(default_factory=Counter[int])
    value: float = 0.0  # of a histogram the sum of all that was observed
    bounds: tuple[float, ...] = ()
    counts: list[int] = field(default_factory=list[int])


@dataclass(slots=True)
class _Family:
    kind: str
    text: str
    holders: Counter[int] = field(default_factory=Counter[int])
    metrics: dict[Labels, _Metric] = field(default_factory=dict[Labels, _Metric])


class CustomMetrics:
    """All families of a server, by name."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}

    def join(self, owner: int, name: str, kind: str, text: str) -> None:
        """Hold a family; the first holder says what it is."""
        if not _NAME.fullmatch(name) or name in FAMILIES:
            raise InvalidArgument(f"a metric family cannot be called {name!r}")
        family = self._families.setdefault(name, _Family(kind, text))
        if family.kind != kind:
            raise InvalidArgument(
                f"metric family {name!r} is a {family.kind} and cannot be a {kind} too"
            )
        family.holders[owner] += 1

    def leave(self, owner: int, name: str) -> None:
        """Hold a family no more."""
        family = self._families.get(name)
        if family is not None:
            family.holders[owner] -= 1
            if not +family.holders:
                del self._families[name]

    def add(
        self, owner: int, name: str, labels: Mapping[str, str], bounds: Sequence[float] | None
    ) -> None:
        """Hold a metric of a family; holders of the same labels share it."""
        family = self._family(name)
        bad = [key for key in labels if not _LABEL.fullmatch(key)]
        if bad:
            raise InvalidArgument(f"a label cannot be called {bad[0]!r}")
        found = tuple(bounds or ())
        if any(low >= high for low, high in pairwise(found)):
            raise InvalidArgument(f"bounds of buckets must ascend, got {list(found)}")
        fresh = _Metric(bounds=found, counts=[0] * (len(found) + 1))
        family.metrics.setdefault(_key(labels), fresh).holders[owner] += 1

    def remove(self, owner: int, name: str, labels: Mapping[str, str]) -> None:
        """Hold a metric no more."""
        family = self._families.get(name)
        metric = family and family.metrics.get(_key(labels))
        if family and metric:
            metric.holders[owner] -= 1
            if not +metric.holders:
                del family.metrics[_key(labels)]

    def act(self, name: str, labels: Mapping[str, str], what: str, amount: float) -> float:
        """`increment`, `set`, `observe` or ask for the `value`, which is what comes back."""
        family = self._family(name)
        metric = family.metrics.get(_key(labels))
        if metric is None:
            raise NotFound(f"metric family {name!r} has no metric with labels {dict(labels)}")
        if what not in _ACTS[family.kind]:
            raise Unsupported(f"a {family.kind} does not support {what!r}")
        if family.kind == "counter" and amount < 0:
            raise InvalidArgument(f"a counter only grows, got {amount:g}")
        _CHANGES[what](metric, amount)
        return metric.value

    def gone(self, owner: int) -> None:
        """An owner is gone, and all that it held."""
        for name, family in list(self._families.items()):
            for labels, metric in list(family.metrics.items()):
                metric.holders.pop(owner, None)
                if not +metric.holders:
                    del family.metrics[labels]
            family.holders.pop(owner, None)
            if not +family.holders:
                del self._families[name]

    def lines(self) -> Iterator[str]:
        """The text for Prometheus."""
        for name, family in self._families.items():
            yield f"# HELP {name} {family.text}".replace("\n", r"\n")
            yield f"# TYPE {name} {family.kind}"
            for labels, metric in family.metrics.items():
                if family.kind == "histogram":
                    yield from _histogram(name, labels, metric)
                else:
                    yield f"{name}{_braces(labels)} {_number(metric.value)}"

    def _family(self, name: str) -> _Family:
        family = self._families.get(name)
        if family is None:
            raise NotFound(f"there is no metric family {name!r}")
        return family


def _increment(metric: _Metric, amount: float) -> None:
    metric.value += amount


def _set(metric: _Metric, amount: float) -> None:
    metric.value = amount


def _observe(metric: _Metric, amount: float) -> None:
    metric.value += amount
    metric.counts[bisect_left(metric.bounds, amount)] += 1


_CHANGES: Final[Mapping[str, Callable[[_Metric, float], None]]] = {
    "increment": _increment,
    "set": _set,
    "observe": _observe,
    "value": lambda metric, amount: None,
}
_ACTS: Final = {
    "counter": ("increment", "value"),
    "gauge": ("increment", "set", "value"),
    "histogram": ("observe",),
}


def _key(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _histogram(name: str, labels: Labels, metric: _Metric) -> Iterator[str]:
    count = 0
    for bound, number in zip((*metric.bounds, inf), metric.counts, strict=True):
        count += number
        yield f"{name}_bucket{_braces((*labels, ('le', _number(bound))))} {count}"
    yield f"{name}_sum{_braces(labels)} {_number(metric.value)}"
    yield f"{name}_count{_braces(labels)} {count}"


def _braces(labels: Labels) -> str:
    told = ",".join([f'{key}="{escape(value)}"' for key, value in labels])
    return f"{{{told}}}" if told else ""


def _number(value: float) -> str:
    return f"{value:.16g}" if abs(value) != inf else "+Inf" if value > 0 else "-Inf"
