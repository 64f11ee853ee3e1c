"""Terms: on which terms a model version takes requests, as its configuration has them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuili.server.scheduling.cache import ResponseCache
from tuili.server.scheduling.holding import Hold
from tuili.server.scheduling.layout import Layout
from tuili.server.scheduling.lost import Lost
from tuili.server.scheduling.pacing import Pace
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.sequences import SequencePolicy
from tuili.server.serving.admitting import Door
from tuili.server.serving.shared_cache import SharedAnswers


@dataclass(frozen=True, slots=True)
class Terms:
    """Who waits, who goes together, who is turned away, and what is kept of the answers."""

    policy: BatchPolicy
    # It may answer a request any number of times.
    decoupled: bool = False
    # A request whose host died may be run once more.
    idempotent: bool = True
    sequences: SequencePolicy | None = None
    lost: Lost | None = None
    # Rows that pay in one batch are learnt.
    adaptive: bool = False
    cache: ResponseCache | None = None
    shared: SharedAnswers | None = None
    layout: Layout | None = None
    pace: Pace | None = None
    door: Door | None = None
    hold: Hold | None = None

    def for_streams(self, *, batched: bool) -> Terms:
        """Those of a decoupled model, which gets requests one by one unless it takes batches."""
        policy = self.policy if batched else replace(self.policy, merge=False)
        sequences = self.sequences and self.sequences.one_by_one()
        return replace(self, policy=policy, sequences=sequences)

    @property
    def groups(self) -> int:
        """The instances that sequences are bound to; 0 where any instance may run any request."""
        sequences = self.sequences
        return sequences.instances if sequences and not sequences.states else 0

    @property
    def in_order(self) -> bool:
        """Whether answers leave in the order of their requests."""
        policy = self.sequences.batch if self.sequences else self.policy
        return policy.in_order and not self.decoupled
