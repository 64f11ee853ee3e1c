"""Conduct: what of a connection only smells of an attack, counted by the second.

None of these frames breaks the protocol; an honest client sends few of them.
"""

from __future__ import annotations

from typing import Final

from tuili.server.grpc import frames as h2
from tuili.server.grpc.frames import ConnectionFault
from tuili.server.grpc.limits import GrpcLimits

_EARNED: Final = 16  # control frames that come with a call of an honest client
# Of data sent, pays for a small window update: proxies open their windows by what they passed on,
# 16 KiB at a time with crumbs between (HAProxy: 16,320 bytes, then 64, on both windows).
_PAYS: Final = 4 << 10


class Conduct:
    """Counts; what is too much is a ConnectionFault."""

    def __init__(self, limits: GrpcLimits) -> None:
        self._limits = limits
        self._resets = self._controls = self._empties = 0
        self._sent = 0  # bytes of data that no window update has used up

    def sent(self, size: int) -> None:
        """Data went out, which the client's windows have to be opened for again."""
        self._sent += size

    def small_update(self) -> None:
        """A window opened by next to nothing: free where we sent enough, else as any control."""
        if self._sent >= _PAYS:
            self._sent -= _PAYS
        else:
            self.control()

    def control(self) -> None:
        """A frame that makes work and carries none."""
        self._controls += 1
        if self._controls > self._limits.max_control_frames:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many control frames")

    def empty(self) -> None:
        """A DATA frame without any."""
        self._empties += 1
        if self._empties > self._limits.max_empty_frames:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many empty DATA frames")

    def reset(self) -> None:
        """A stream that was started only to be taken back, or to be refused."""
        self._resets += 1
        if self._resets > self._limits.max_resets:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many resets")

    def earned(self) -> None:
        """An answer: an honest client acknowledges it and opens its window again."""
        if self._controls:
            self._controls = max(self._controls - _EARNED, 0)

    def next_second(self) -> None:
        """All is forgiven; what data paid for stays paid."""
        self._resets = self._controls = self._empties = 0
