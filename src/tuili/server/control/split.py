"""Split: what stands where a model's newest version stands while a roll-out is under way.

To the data plane it is a live version like any other, so a server without roll-outs has nothing of
this on its path. It asks the router, sends the request to a variant, and counts what comes back.

A roll-out costs no client an answer: what fails on a candidate by the server's fault is asked of
the stable variant, and counted as the candidate's failure.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tuili.errors import TuiliError, Unavailable, UserError
from tuili.server.control.routing import Asked, Routed, goes_on, mark
from tuili.server.control.shadow import Shadow
from tuili.server.execution.hosts import Host
from tuili.server.execution.pending import Reply, StreamReply
from tuili.server.protocol.messages import (
    InferRequest,
    InferResponse,
    ends_sequence,
    sequence_of,
)
from tuili.server.protocol.signature import Signature
from tuili.server.rollout.history import Rollout
from tuili.server.rollout.plan import STABLE
from tuili.server.rollout.router import Choice, Router
from tuili.server.rollout.slices import Slices
from tuili.server.rollout.sticky import Users
from tuili.server.rollout.tally import Tally
from tuili.server.scheduling.remembered import Remembered
from tuili.server.serving.ensemble import Ensemble
from tuili.server.serving.servable import Servable
from tuili.server.telemetry.statistics import Statistics

Live = Servable | Ensemble
_LOOK_THROUGH: Final = 1 << 16  # larger answers are looked through for NaN once in eight
_MOST_REQUESTS: Final = 10_000  # whose variant is remembered for feedback


class Split:
    """The front of a model under roll-out."""

    def __init__(
        self,
        rollout: Rollout,
        versions: Callable[[], Mapping[str, Live]],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.rollout = rollout
        self.router = Router(rollout.plan, chance)
        self.numbers = {STABLE: str(rollout.stable)} | {
            name: str(version) for name, version in rollout.plan.candidates.items()
        }
        self._versions = versions
        stable = self.live(STABLE)
        self._was_decoupled = stable is not None and stable.decoupled
        self._chance = chance
        self._sequences = Remembered[str]()
        self._users = Users()
        self._asked: dict[str, str] = {}  # request id: variant, for feedback
        self._looks = 0
        self._crashes: dict[str, int] = {}
        self.shadow = Shadow(rollout.plan, self._versions, chance)
        self.tallies: dict[str, Tally] = {}
        self.slices: dict[str, Slices] = {name: Slices() for name in rollout.plan.candidates}
        self.seconds = 0
        self._followed = (-1, 0)
        self.follow()

    # ---- the face of a live version
    @property
    def stable(self) -> Live:
        """The stable version; Unavailable while there is none."""
        return self._loaded(self.live(STABLE))

    @property
    def signature(self) -> Signature:
        """Of the stable version, as are all facts that clients ask for."""
        return self.stable.signature

    @property
    def config(self) -> dict[str, Any]:
        """The stable version's configuration."""
        return self.stable.config

    @property
    def version(self) -> str:
        """The stable version's number."""
        return self.numbers[STABLE]

    @property
    def statistics(self) -> Statistics:
        """The stable version's statistics."""
        return self.stable.statistics

    @property
    def decoupled(self) -> bool:
        """Whether the model may answer any number of times."""
        stable = self.live(STABLE)
        # Gone: who has met the split in a pipeline goes on with what he holds.
        return self._was_decoupled if stable is None else stable.decoupled

    @property
    def sequence_idle_s(self) -> float:
        """How long a sequence of the stable version may be idle."""
        return self.stable.sequence_idle_s

    def keeps(self, sequence: int | str) -> bool:
        """Whether a variant has an open sequence."""
        return bool(self._variant_of(sequence, time.monotonic()))

    def forsake(self, sequence: int | str, why: str = "") -> None:
        """Its variants hear of that themselves."""
        self._sequences.forget(sequence)

    def open_sequences(self) -> int:
        """None of its own: its variants have them."""
        return 0

    @property
    def hosts(self) -> Sequence[Host]:
        """The stable version's processes."""
        return self.stable.hosts

    @property
    def broken(self) -> str:
        """Why the stable version cannot answer, or ""."""
        found = self._versions().get(self.numbers[STABLE])
        return "the stable version is not loaded" if found is None else found.broken

    def pending(self) -> int:
        """Requests that wait for the stable version."""
        return self.stable.pending()

    def hold(self) -> None:
        """Its versions are held themselves, as far as a request meets them."""

    def release(self) -> None:
        """As `hold`."""

    def shut(self) -> None:
        """Its versions are shut themselves."""

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Nothing of its own is in flight: its versions drain themselves."""
        return True

    async def close(self) -> None:
        """Nothing to release."""

    # ---- requests
    def submit(self, request: InferRequest, reply: Reply) -> Routed:
        """Send a request to the variant that the router chooses."""
        routed = Routed(self, request, reply)
        routed.start()
        return routed

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Any:
        """As `submit`, for a model that answers any number of times; the last answer counts."""
        choice = self.choose(request)
        variant = self.able(choice, request)
        if variant is None:
            self.stays(request, choice)
            return self._stream_of(self.stable_for(request), request, reply)
        began = time.monotonic_ns()

        def part(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if isinstance(answer, InferResponse):
                mark(answer, choice.variant)
            if final and isinstance(answer, TuiliError):
                if not isinstance(answer, UserError):
                    self._count_failure(choice, str(answer))
            elif final:
                self.count(choice, time.monotonic_ns() - began)
            reply(answer, final)

        return self._stream_of(variant, request, part)

    def _stream_of(self, live: Live, request: InferRequest, reply: StreamReply) -> Any:
        if live.decoupled:
            return live.submit_stream(request, reply)
        return live.submit(request, lambda answer: reply(answer, True))

    def choose(self, request: InferRequest) -> Choice:
        """The variant of a request, remembered for its sequence and for the DAG it is part of."""
        plan = self.rollout.plan
        now = time.monotonic()
        sequence = sequence_of(request)
        kept = self._variant_of(sequence, now) if sequence else ""
        chosen = request.kept.variants.get(plan.model, "") if request.kept is not None else ""
        # A variant that another model of the DAG has is none of ours.
        asked = Asked(request, self.numbers if request.kept is not None else None)
        choice = self.router.choose(asked, kept or chosen)
        if request.kept is not None:
            request.kept.variants[plan.model] = choice.variant
        if sequence:
            ends = ends_sequence(request)
            self._sequences.keep(sequence, choice.variant, now, ends=ends)
        if choice.dealt and (not choice.unit or self._users.is_new(choice.unit)):
            self.tallies[choice.variant].units += 1
        if request.id:
            self._remember(request.id, choice.variant)
        return choice

    def _variant_of(self, sequence: int | str, now: float) -> str:
        """The variant of a sequence, or ""; one that began before the roll-out is where it was."""
        kept = self._sequences.get(sequence, now)
        if kept is not None:
            return kept
        found = ((name, self.live(name)) for name in self.numbers)
        return next((name for name, each in found if each and each.keeps(sequence)), "")

    def stays(self, request: InferRequest, choice: Choice) -> None:
        """The stable variant answers for another; a sequence that begins so goes on there."""
        sequence = sequence_of(request)
        if not sequence:
            return
        chosen = self.live(choice.variant)
        if chosen is not None:
            chosen.forsake(
                sequence, "its first request failed, another version answered; start it anew"
            )
        ends = ends_sequence(request)
        self._sequences.keep(sequence, STABLE, time.monotonic(), ends=ends)

    def live(self, variant: str) -> Live | None:
        """A variant's live version, or None."""
        return self._versions().get(self.numbers[variant])

    def stable_for(self, request: InferRequest) -> Live:
        """The stable version, or the one that other steps of the request's pipeline have met."""
        return self._loaded(self._met(STABLE, request))

    def _met(self, variant: str, request: InferRequest) -> Live | None:
        model, number, kept = request.model, self.numbers[variant], request.kept
        met = None if kept is None else kept.met(model, number)
        found = met or self.live(variant)
        if kept is not None and met is None and found is not None:
            kept.meet(model, number, found)
        return found

    def _loaded(self, stable: Live | None) -> Live:
        if stable is None:
            raise Unavailable(
                f"'{self.rollout.plan.model}' version {self.numbers[STABLE]} is not loaded"
            )
        return stable

    def able(self, choice: Choice, request: InferRequest) -> Live | None:
        """The chosen variant; None if it cannot answer and another may.

        None but the variant that has it goes on with a sequence, so that says what became of it.
        """
        live = self._met(choice.variant, request)
        why = live.broken if live is not None else "it is not loaded"
        if not why or (live is not None and goes_on(request)):
            return live
        self._count_failure(choice, why)
        if goes_on(request):
            raise Unavailable(
                f"sequence {sequence_of(request)} of '{request.model}' is with {choice.variant}, "
                f"version {self.numbers[choice.variant]}, and {why}; start it anew"
            )
        return None

    # ---- counting
    def count(self, choice: Choice, duration_ns: int) -> None:
        """A variant answered well."""
        if choice.reason != "asked":
            self.tallies[choice.variant].answered(duration_ns)

    def look_through(self, choice: Choice, answer: InferResponse) -> None:
        """Look for NaN among an answer's numbers."""
        size = sum(each.data.size for each in answer.outputs if each.data is not None)
        self._looks += 1
        if size > _LOOK_THROUGH and self._looks % 8:
            return
        tally = self.tallies[choice.variant]
        tally.checked += 1
        for output in answer.outputs:
            if (
                output.data is not None
                and output.data.dtype.kind == "f"
                and _holds_nan(output.data)
            ):
                tally.nans += 1
                tally.note = f"output {output.name!r} holds NaN"
                return

    def _count_failure(self, choice: Choice, note: str) -> None:
        self.tallies[choice.variant].failed(note)

    failed = _count_failure

    def feedback(self, request_id: str, variant: str, name: str, value: float) -> str:
        """A client's opinion of an answer, in [0, 1]; the variant it was counted for, or ""."""
        found = variant or self._asked.get(request_id, "")
        if found not in self.tallies:
            return ""
        self.tallies[found].rate_feedback(name, value)
        return found

    def _remember(self, request_id: str, variant: str) -> None:
        self._asked[request_id] = variant
        if len(self._asked) > _MOST_REQUESTS:
            del self._asked[next(iter(self._asked))]

    # ---- the conductor's side
    def follow(self) -> None:
        """Go where the roll-out is: a new round of a step has other weights and new numbers.

        A step without stable traffic is compared with what the stable variant did last.
        """
        rollout = self.rollout
        before, self._followed = self._followed, (rollout.round, len(rollout.dropped))
        if before == self._followed:
            return
        weights = rollout.weights()
        self.router.deal(weights)
        if before[0] != rollout.round:
            earlier = self.tallies.get(STABLE)
            self.tallies = {name: Tally() for name in self.numbers}
            if earlier is not None and sum(weights.values()) >= 100:
                self.tallies[STABLE] = earlier
            self._users.clear()
            self.seconds = 0
        self.shadow.restart(rollout, self.tallies)
        self._watch()

    def _watch(self) -> None:
        for name, number in self.numbers.items():
            live = self._versions().get(number)
            if live is not None:
                live.statistics.watch = self.tallies[name].took

    def stop(self) -> None:
        """No candidate gets anything any more, from this moment."""
        self.router.deal({})
        self.shadow.stop()
        for live in self._versions().values():
            live.statistics.watch = None

    def second_ended(self) -> None:
        """Close a slice of time; look whether processes died."""
        self.seconds += 1
        for name in self.rollout.candidates():
            self.slices[name].end(self.tallies[STABLE], self.tallies[name])
            live = self.live(name)
            deaths = sum(host.policy.deaths for host in live.hosts) if live is not None else 0
            known = self._crashes.setdefault(name, 0)
            if deaths > known:
                self._crashes[name] = deaths
                tally = self.tallies[name]
                tally.crashes += deaths - known
                tally.note = (live.broken if live is not None else "") or tally.note


def _holds_nan(data: np.ndarray[Any, Any]) -> bool:
    with np.errstate(all="ignore"):
        if np.isfinite(data.sum(dtype=np.float64)):
            return False
    return bool(np.isnan(data).any())
