"""Sampler: which requests are traced; every n-th, until so many were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Sampler:
    """The trace settings of one model, or of all that have none of their own."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings` are those of the trace extension."""
        levels = settings["trace_level"]
        self.levels = frozenset(levels if isinstance(levels, list) else [levels]) - {"OFF"}
        self.file = str(settings["trace_file"])
        self.log_frequency = int(settings["log_frequency"])
        self.left = int(settings["trace_count"])  # -1: no end
        self._rate = int(settings["trace_rate"])
        self._seen = 0

    @property
    def open(self) -> bool:
        """Whether any request can still be taken."""
        return bool(self.levels) and self._rate > 0 and self.left != 0

    def take(self) -> bool:
        """Count a request; whether it is one to trace."""
        if not self.open:
            return False
        self._seen += 1
        if self._seen % self._rate:
            return False
        if self.left > 0:
            self.left -= 1
        return True
