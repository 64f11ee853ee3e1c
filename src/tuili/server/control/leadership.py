"""Leadership: whether this server decides; handed over when the leader shows no life.

No clocks are compared: a follower measures by its own monotonic clock how long the leader's beat
has stood still. A leader that was only asleep finds another epoch when it writes, and is refused.
"""

from __future__ import annotations

from typing import Final

from tuili.server.control.store import Lease, Store

TTL_S: Final = 5.0
_RENEW_S: Final = 1.0


class Leadership:
    """This server's view of the lease."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._seen: Lease | None = None
        self._changed_at = 0.0
        self._renewed_at = 0.0

    @property
    def mine(self) -> bool:
        """Whether this server led when it last looked."""
        return self._seen is not None and self._seen.holder == self._server

    def epoch(self, store: Store, now: float) -> int | None:
        """The epoch of this server's leadership, or None while another leads. Blocks."""
        lease = store.lease()
        if lease.holder == self._server and now - self._renewed_at < _RENEW_S:
            self._seen = lease
            return lease.epoch
        if self._seen is None or (lease.holder, lease.beat) != (self._seen.holder, self._seen.beat):
            self._seen, self._changed_at = lease, now
        free = lease.holder in ("", self._server) or now - self._changed_at >= TTL_S
        taken = store.take_lease(self._server, lease) if free else None
        if taken is None:
            return None
        self._seen, self._changed_at, self._renewed_at = taken, now, now
        return taken.epoch
