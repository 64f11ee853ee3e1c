"""Usual: of runs that go as always, one in some is enough to learn from.

To learn from a run takes longer than a tiny model's run itself.
"""

from __future__ import annotations

from typing import Final

import msgspec

_ENOUGH: Final = 32  # runs of one size that are all learnt from
_EVERY: Final = 4
_STRANGE: Final = 2.0  # so many times the usual time is news


class _Known(msgspec.Struct):
    """What runs of about one size took, and how many there were."""

    seconds: float
    runs: int = 0


class Usual:
    """Told of every run, it says which of them say nothing new."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def expects(self, size: int, seconds: float) -> bool:
        """Whether a run of `size` elements that took `seconds` need not be learnt from."""
        known = self._known.get(size.bit_length())
        if known is None or seconds > _STRANGE * known.seconds:
            self._known[size.bit_length()] = _Known(seconds)
            return False
        known.runs += 1
        if known.runs <= _ENOUGH or not known.runs % _EVERY:
            known.seconds += (seconds - known.seconds) / _EVERY
            return False
        return True
