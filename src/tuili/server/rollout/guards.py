"""Guards: limits that end a roll-out at once, because waiting for proof would cost clients."""

from __future__ import annotations

from math import comb
from typing import Final

from tuili.server.rollout.metrics import Pair
from tuili.server.rollout.plan import Guards

_RECENT: Final = 20
_CHANCE: Final = 1e-6


def tripped(guards: Guards, pair: Pair) -> str | None:
    """Why the candidate must go now, or None."""
    stable, candidate = pair.stable, pair.candidate
    if guards.crashes and candidate.crashes >= guards.crashes:
        return f"the candidate's process died {candidate.crashes} time(s): {candidate.note}"
    if guards.nans and candidate.nans >= guards.nans and not stable.nans:
        return (
            f"{candidate.nans} of {candidate.checked} answers of the candidate hold NaN, "
            f"none of {stable.checked} of the stable variant"
        )
    recent = candidate.recent_errors()
    if guards.error_burst and recent >= guards.error_burst:
        usual = (stable.errors + 1) / (stable.requests + 20)
        if _chance(recent, usual) < _CHANCE:
            return (
                f"error burst: {recent} of the candidate's last {_RECENT} requests failed, "
                f"the stable variant fails {100 * usual:.2g} %: {candidate.note}"
            )
    return None


def _chance(errors: int, rate: float) -> float:
    """How likely at least so many of twenty fail at this rate."""
    rate = min(rate, 1.0)
    return sum(
        comb(_RECENT, k) * rate**k * (1 - rate) ** (_RECENT - k) for k in range(errors, _RECENT + 1)
    )
