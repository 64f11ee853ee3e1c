"""Residency: which loaded models have to go so that another one fits: those used least recently.

Nothing in use goes: between the arrival of a request and its answer its model is pinned, so that
load, run and release are one step for the client.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model: what it holds, when it was used last, and whether it may go."""

    name: str
    size_bytes: int
    used_at: float
    pinned: bool = False


def victims(residents: Iterable[Resident], budget_bytes: int, needed_bytes: int) -> list[str]:
    """The models to unload so that `needed_bytes` fit into the budget, least recently used first.

    All that may go, when even that is not enough: `fits` tells.
    """
    there = list(residents)
    over = sum(each.size_bytes for each in there) + needed_bytes - budget_bytes
    gone: list[str] = []
    for each in sorted(there, key=lambda each: (each.used_at, each.name)):
        if over <= 0:
            break
        if not each.pinned and each.size_bytes > 0:
            gone.append(each.name)
            over -= each.size_bytes
    return gone


def fits(residents: Iterable[Resident], budget_bytes: int, needed_bytes: int) -> bool:
    """Whether `needed_bytes` fit once everything that is not pinned has gone."""
    kept = sum(each.size_bytes for each in residents if each.pinned)
    return kept + needed_bytes <= budget_bytes
