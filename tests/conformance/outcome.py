"""Outcome: what became of one case of the ONNX backend suite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One case: `result` is passed, failed or skipped; `how` says where it ran."""

    name: str
    category: str
    result: str
    how: str = ""
    reason: str = ""
