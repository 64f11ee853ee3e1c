"""Custom metrics of Triton's Python models: families and their metrics, which the server keeps."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from tuili.backends.triton_calls import ask
from tuili.backends.triton_tensors import TritonModelException

# What is not held any more: told with the next call, as objects may go in the midst of any.
_let_go: Final[deque[tuple[str, Mapping[str, Any]]]] = deque()


class MetricKind(Enum):
    """What a family counts."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Metric:
    """One metric of a family: its value for some labels."""

    def __init__(
        self, family: MetricFamily, labels: Mapping[str, str], buckets: Sequence[float] | None
    ) -> None:
        self._family = weakref.ref(family)
        self._name, self._labels = family.name, dict(labels)
        _ask(self._name, act="add", labels=self._labels, buckets=buckets)
        weakref.finalize(self, _let_go.append, (self._name, {"act": "remove", "labels": labels}))

    def increment(self, value: float) -> None:
        """Add to a counter or a gauge."""
        self._act("increment", value)

    def set(self, value: float) -> None:
        """Set a gauge."""
        self._act("set", value)

    def observe(self, value: float) -> None:
        """Count a value in a histogram."""
        self._act("observe", value)

    def value(self) -> float:
        """The value of a counter or a gauge."""
        return self._act("value", 0.0)

    def _act(self, what: str, amount: float) -> float:
        if self._family() is None:
            raise TritonModelException(
                "Invalid metric operation as the corresponding 'MetricFamily' has been deleted. "
                "The 'MetricFamily' object should be deleted AFTER its corresponding 'Metric' "
                "objects have been deleted."
            )
        return _ask(self._name, act=what, labels=self._labels, amount=float(amount))


class MetricFamily:
    """Metrics of one name; `kind` is COUNTER, GAUGE or HISTOGRAM."""

    COUNTER, GAUGE, HISTOGRAM = MetricKind

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        self.name = name
        self._kind = kind
        _ask(name, act="join", kind=kind.value, text=description)
        weakref.finalize(self, _let_go.append, (name, {"act": "leave"}))

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The metric for some labels; a histogram needs the upper bounds of its buckets."""
        if labels is not None and not isinstance(labels, dict):
            raise TritonModelException("Failed to create metric. Labels must be a dictionary.")
        if any(not isinstance(value, str) for value in (labels or {}).values()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TritonModelException("Failed to create metric. Labels must be text.")
        histogram = self._kind is MetricKind.HISTOGRAM
        if histogram and buckets is None:
            raise TritonModelException("Failed to create metric. Missing required buckets.")
        if not histogram and buckets is not None:
            raise TritonModelException("Failed to create metric. Unexpected buckets found.")
        return Metric(self, labels or {}, buckets)


def _ask(name: str, **told: Any) -> float:
    while _let_go:
        gone, how = _let_go.popleft()
        ask("metric", gone, parameters=dict(how))
    answer = ask("metric", name, parameters=told).text
    return float(answer) if answer else 0.0
