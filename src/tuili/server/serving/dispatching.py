"""Dispatcher: takes batches out of a queue while instances are free, and runs them.

One `flush` per loop tick takes batches out, so whatever one tick brought becomes one batch, and
while all instances are busy the next batch grows. All methods run on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tuili.errors import DeadlineExceeded, TuiliError
from tuili.server.execution.pending import Pending
from tuili.server.execution.running import InstanceDied, Outcome, Runner, execute
from tuili.server.execution.unexpected import of_tree
from tuili.server.scheduling.admission import Expectation
from tuili.server.scheduling.deadlock import AnyOf, Need, Turns
from tuili.server.scheduling.gathering import Gather
from tuili.server.scheduling.holding import Hold
from tuili.server.scheduling.layout import Layout
from tuili.server.scheduling.overlap import Overlap, Run
from tuili.server.scheduling.pacing import Pace
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.queue import RequestQueue
from tuili.server.scheduling.resources import Claim, Resources, Turn
from tuili.server.scheduling.sequences import SequenceQueue
from tuili.server.scheduling.usual import Usual
from tuili.server.serving.answering import Answers
from tuili.server.serving.finishing import Finisher, Queue
from tuili.server.serving.idle import Idle
from tuili.server.serving.rehearsing import rehearsed

_NS: Final = 1_000_000_000
_OVERLAP_FROM_S: Final = 300e-6
# Runs so long gain less than a hundredth by a batch that lies ready behind them.
_OVERLAP_LIMITED_S: Final = 5e-3
_LOOP_S: Final = 100e-6  # how long one tick may run models before it looks at the sockets again


@dataclass(frozen=True, slots=True)
class Policies:
    """What decides which requests leave, when, and how they lie in a batch."""

    queue: Queue
    placement: Placement
    layout: Layout | None = None
    pace: Pace | None = None
    expectation: Expectation | None = None
    hold: Hold | None = None
    gather: Gather | None = None
    overlap: Overlap | None = None  # all instances run one model in this process


class Dispatcher:
    """The shell between the queue's policies and the instances of one model version."""

    def __init__(
        self,
        policies: Policies,
        instances: Sequence[Runner],
        answers: Answers,
        finisher: Finisher,
        *,
        hosts: int = 0,
        groups: int = 0,
    ) -> None:
        """Sequences are bound to one of `groups` instances, each of as many runners; 0: none is."""
        self.instances = list(instances)
        each = max(len(instances) // max(groups, 1), 1)
        self._groups = {runner: at // each for at, runner in enumerate(instances) if groups}
        # The turns of instances that share resources with those of other models.
        self._turns: dict[Runner, Turn] = {}
        self._resources: Resources | None = None
        self._queue = policies.queue
        self._drops = isinstance(policies.queue, SequenceQueue)
        self._answers = answers
        self._finisher = finisher
        self._placement = policies.placement
        self._hosts = hosts
        self._overlap = policies.overlap
        # Runs of one model that share the cores.
        self._sharing: dict[Runner, Run] = {}
        self._layout = policies.layout
        self._pace = policies.pace
        self._expectation = policies.expectation
        self._hold = policies.hold
        self._gather = policies.gather
        # Requests that run.
        self.under_way = 0
        # Requests that may be answered any number of times and are not over, by their runner.
        self._open: Counter[Runner] = Counter()
        self._free = list(instances)
        # Those that are to be done without once they do not run.
        self._going: frozenset[Runner] = frozenset()
        self._running: set[Runner] = set()
        self._run_s = 0.0
        self._usual = Usual()  # of runs on the loop
        self._loop = asyncio.get_running_loop()
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.idle = Idle(self._has_nothing)

    # ---- what happens to the queue and the instances
    def wake(self) -> None:
        """Something waits: look at it once this tick's events are in."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let batches leave while instances are free."""
        self._due = False
        now = time.monotonic()
        queue = self._queue
        for item in queue.expire(now):
            error = DeadlineExceeded("Request timeout expired")
            self._answers.fail(item, error, "REJECTED")
        if self._drops:
            self._fail_dropped()
        if self._hold is not None:
            if self._hold.holds(*queue.gathered()):
                return
            self._hold = None
        if self._gather is not None and self._gathers(self._gather, now):
            self.wake()
            return
        ran_here = self._run_free(now)
        waiting = len(queue)
        if ran_here and waiting:
            self.wake()
        elif self._turns and not waiting:
            # Nothing is left to run: others may have what was waited for.
            for instance in self._free:
                self._turns[instance].drop()
        if waiting or self._drops:
            self._arm(now)
        self.idle.settle()

    def _run_free(self, now: float) -> bool:
        """Give the free instances what is worth it; true if the last batch ran right here."""
        queue = self._queue
        ran_here = False
        while self._free and not self._better_wait(now):
            if self._groups:
                batch = self._next_bound(now)
            else:
                # For the last of the free instances.
                batch = [] if self._turns and not self._may_run() else queue.take(now)
            if not batch:
                break
            ran_here = self._start(batch, queue.left)
            if ran_here and time.monotonic() - now > _LOOP_S:
                break
        return ran_here

    def share(self, resources: Resources, claims: Mapping[Runner, Claim]) -> None:
        """These instances run only when they have what they claim of the resources."""
        self._resources = resources
        for instance, claim in claims.items():
            self._turns[instance] = resources.join(claim, self.wake, instance.process)

    def leave(self, instances: Sequence[Runner]) -> None:
        """Give up the turns of these instances."""
        if self._resources is not None:
            for instance in instances:
                self._resources.leave(self._turns.pop(instance))

    def add(self, instances: Sequence[Runner], *, hosts: int = 0) -> None:
        """More instances are there, which claim what the last of those before them does."""
        if self._resources is not None:
            claim = self._turns[self.instances[-1]].claim
            self.share(self._resources, dict.fromkeys(instances, claim))
        self.instances += instances
        self._free += instances
        self._hosts += hosts
        self.wake()

    def remove(self, instances: Sequence[Runner], *, hosts: int = 0) -> bool:
        """Do without these instances; false while one of them runs, and none gets more to do."""
        self._going = frozenset(instances)
        self._free = [each for each in self._free if each not in instances]
        if any(each in self._running or self._open[each] for each in instances):
            return False
        self._going = frozenset()
        self.leave(instances)
        self.instances = [each for each in self.instances if each not in instances]
        self._hosts -= hosts
        return True

    def keep(self) -> None:
        """Instances that were to go stay."""
        if self._going:
            self._going = frozenset()
            self.instances_changed()
            self.wake()

    def cancelled(self, item: Pending) -> None:
        """Nobody waits for a request that may be running."""
        for instance in list(self._running) if item.part is None else self.instances:
            instance.cancelled(item)

    def instances_changed(self) -> None:
        """Instances went or came back."""
        self._free = [
            each
            for each in self.instances
            if each.available and each not in self._running and each not in self._going
        ]
        for runner in self.instances:
            if not runner.available:
                self._lost(runner)

    async def rehearse(
        self, item: Pending, runners: Sequence[Runner] | None = None, *, many: bool
    ) -> None:
        """Run a request on all `runners`, before there are others; raises what one of them says.

        They may be ones that are to be added; by default they are all that there are.
        """
        if self._layout is not None:
            self._layout.prepare([item])
        if runners is None:
            runners = self.instances[:1] if self._overlap else self.instances
        for runner in runners:
            outcome = await rehearsed(partial(self._run_beside, runner), item, many=many)
            self._learn(item.elements, outcome, on_loop=False)

    def needs(self) -> list[Need]:
        """What must happen before a request that waits runs: an instance, and its turn."""
        there = [each for each in self.instances if each.available]
        if not there:
            return []
        found: list[Need] = [AnyOf({each.process for each in there})]
        if self._turns:
            found.append(Turns([(each.process, self._turns[each].lacks()) for each in there]))
        return found

    # ---- the end
    def stop(self) -> None:
        """No more timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _has_nothing(self) -> bool:
        return not len(self._queue) and not self._running and not +self._open

    # ---- steps
    def _next_bound(self, now: float) -> list[Pending]:
        """The next batch of sequences; the instance that has them is moved to the end."""
        queue = self._queue
        assert isinstance(queue, SequenceQueue)
        for at in reversed(range(len(self._free))):
            runner = self._free[at]
            turn = self._turns.get(runner)
            if runner.behind_caller or (turn is not None and not self._comes(runner)):
                continue
            batch = queue.take(now, self._groups[runner])
            if batch:
                self._free.append(self._free.pop(at))
                return batch
            if turn is not None:
                turn.drop()
        return []

    def _lost(self, runner: Runner) -> None:
        """What a runner kept of its sequences is gone."""
        if self._groups and isinstance(self._queue, SequenceQueue):
            self._queue.lost(self._groups[runner])
            self._fail_dropped()

    def _fail_dropped(self) -> None:
        for item, error in self._queue.dropped():
            self._answers.fail(item, error, "CANCELED")

    def _may_run(self) -> bool:
        """Whether a free instance has its turn; it is moved to the end of them."""
        if not len(self._queue):
            return True
        for at in reversed(range(len(self._free))):
            if self._comes(self._free[at]):
                self._free.append(self._free.pop(at))
                return True
        return False

    def _comes(self, runner: Runner) -> bool:
        return not self._idles(runner) and self._turns[runner].take()

    def _idles(self, runner: Runner) -> bool:
        """Whether a runner would keep what it claims while it waits behind another."""
        return runner.behind and bool(self._turns[runner].claim.amounts)

    def _prefer_idle(self) -> None:
        """Move a runner whose process has nothing to do to the end of the free ones.

        Behind another batch it would wait for no reason, and for ever if that one waits for it: for
        a model that calls itself.
        """
        best = min(reversed(self._free), key=lambda each: (each.behind_caller, each.behind))
        self._free.remove(best)
        self._free.append(best)

    def _better_wait(self, now: float) -> bool:
        """Whether a second batch, in the same host or of one model, would only make both small.

        Writing a batch while the last one runs hides the hop, which pays for runs longer than it.
        """
        if self._overlap is not None:
            queue = self._queue
            assert isinstance(queue, RequestQueue)
            head = queue.head().elements if len(queue) and self._running else 0
            return not self._overlap.allows(len(queue), head, now)
        if not self._hosts or len(self._running) < self._hosts:
            return False
        if self._run_s < _OVERLAP_FROM_S:
            return True
        if self._run_s > _OVERLAP_LIMITED_S and self._queue.policy.is_queue_limited:
            # There it can neither expire nor be overtaken, and takes no place in the queue.
            return True
        # Behind a run that waits for other models it would wait for all that these wait for.
        return all(each.behind_caller for each in self._free)

    def _gathers(self, gather: Gather, now: float) -> bool:
        """Whether to look at the sockets once more before a batch leaves."""
        waiting = len(self._queue)
        return (
            waiting > 0
            and bool(self._free)
            and self._run_s < _OVERLAP_FROM_S
            and not self._better_wait(now)
            and gather.holds(waiting, now)
        )

    def _arm(self, now: float) -> None:
        """See to it that `flush` runs when a delay or a request's time ends."""
        moment = self._queue.wake_at(now)
        if moment is None or (self._timer is not None and self._timer_at <= moment):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = moment
        delay = max(moment - time.monotonic(), 0.0)
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _start(self, batch: list[Pending], left: str) -> bool:
        """Run a batch; true when it ran right here."""
        if self._hosts > 1 and not self._groups and not self._turns:
            self._prefer_idle()
        instance = self._free.pop()
        if self._turns:
            self._turns[instance].use()
        if self._hosts:
            for item in batch:
                item.process = instance.process
        self.under_way += len(batch)
        if self._pace is not None:
            self._pace.started(len(batch))
        if batch[0].part is not None:
            self._open[instance] += len(batch)
        odd = None if self._layout is None else self._lay_out(self._layout, batch)
        if odd is not None:
            self._finish(instance, batch, left, odd)
            return True
        size = sum([(item.express or item).elements for item in batch])
        model = instance.model
        if model is not None and batch[0].part is None and self._placement.inline(size):
            # What is short enough for the loop is too short to be worth another core, which a
            # client may need.
            outcome = execute(model, batch, threads=1)
            self._learn(size, outcome, on_loop=True)
            self._finish(instance, batch, left, outcome)
            return True
        self._running.add(instance)
        if self._overlap is not None:
            now, waiting = time.monotonic(), len(self._queue)
            run = self._overlap.started(size, len(batch), now, waiting=waiting)
            self._sharing[instance], instance.threads = run, run.threads
        self._run_beside(
            instance,
            batch,
            lambda outcome: self._finish_beside(instance, batch, size, left, outcome),
        )
        for other in self._free if self._turns else ():
            if self._idles(other):
                self._turns[other].drop()
        return False

    def _lay_out(self, layout: Layout, batch: list[Pending]) -> Outcome | None:
        """Put a batch as its model wants it; what came of it where that cannot be."""
        try:
            layout.prepare(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must cost this batch only
            return _failed(of_tree(error, "a batch could not be laid out"))
        return None

    def _run_beside(
        self, instance: Runner, batch: list[Pending], done: Callable[[Outcome], None]
    ) -> None:
        try:
            instance.run_beside(self._loop, batch, done)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must cost this batch only
            found = _failed(of_tree(error, "a batch could not be started"))
            self._loop.call_soon(done, found)

    def _finish_beside(
        self, instance: Runner, batch: list[Pending], size: int, left: str, outcome: Outcome
    ) -> None:
        self._learn(size, outcome, on_loop=False)
        self._finish(instance, batch, left, outcome)
        if not self._due:
            self.flush()

    def _learn(self, size: int, outcome: Outcome, *, on_loop: bool) -> None:
        if outcome.outputs is None or not outcome.frees:
            return
        seconds = (outcome.done_ns - outcome.joined_ns) / _NS
        if on_loop and self._usual.expects(size, seconds):
            return
        self._run_s += 0.1 * (seconds - self._run_s)
        self._placement.record(size, seconds, on_loop=on_loop)
        if on_loop and self._overlap is not None:
            self._overlap.ran_alone(size, seconds)

    def _finish(self, instance: Runner, batch: list[Pending], left: str, outcome: Outcome) -> None:
        if outcome.frees:
            self._running.discard(instance)
            if self._overlap is not None and instance in self._sharing:
                run, well = self._sharing.pop(instance), outcome.outputs is not None
                waiting = len(self._queue)
                self._overlap.ended(run, time.monotonic(), waiting=waiting, well=well)
            if self._turns:
                self._turns[instance].done(again=len(self._queue) > 0 and instance.available)
            if instance.available and instance not in self._going:
                self._free.append(instance)
            if not outcome.ends and outcome.error is None:
                self._finisher.taken(batch, left, outcome)
        if outcome.ends:
            ended = batch if outcome.at < 0 else batch[outcome.at : outcome.at + 1]
            if batch[0].part is not None:
                self._open[instance] -= len(ended)
            self._over(instance, ended, left, outcome)

    def _over(self, instance: Runner, batch: list[Pending], left: str, outcome: Outcome) -> None:
        """A batch has all its answers."""
        self.under_way -= len(batch)
        if isinstance(outcome.error, InstanceDied):
            self._lost(instance)
        if self._pace is not None:
            self._tell_pace(self._pace, batch, outcome)
        if self._expectation is not None:
            if self._overlap is not None:
                self._expectation.instances = self._overlap.at_once
            # What the run took, not its wait behind another one in the same host.
            self._expectation.ran(len(batch), (outcome.done_ns - outcome.started_ns) / _NS)
        self._finisher.finish(batch, left, outcome)

    def _tell_pace(self, pace: Pace, batch: list[Pending], outcome: Outcome) -> None:
        now_ns = time.monotonic_ns()
        latency_ns = len(batch) * now_ns - sum([item.arrived_ns for item in batch])
        run_s = (outcome.done_ns - outcome.joined_ns) / _NS
        pace.answered(len(batch), latency_ns / _NS, run_s, now_ns / _NS, len(self._queue))


def _failed(error: TuiliError) -> Outcome:
    now_ns = time.monotonic_ns()
    return Outcome(now_ns, now_ns, now_ns, error=error)
