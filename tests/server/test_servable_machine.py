"""A state machine over queue, batcher, cancellation, timeouts and instances that fail, hang or die.

Whatever happens in whatever order: each request is answered at most once, with its own rows or an
error, and never forgotten. Time is the test's.
"""

import asyncio
from dataclasses import replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.server.fake_clock import FakeClock, settle
from tuili.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    TuiliError,
    Unavailable,
)
from tuili.server.execution.running import InstanceDied, Outcome, join
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.scheduling.admission import Admission, Expectation, Limits
from tuili.server.scheduling.controls import Control, StateTensor
from tuili.server.scheduling.layout import Layout, Padding
from tuili.server.scheduling.pacing import Pace
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy
from tuili.server.scheduling.sequences import SequencePolicy
from tuili.server.serving.admitting import Door
from tuili.server.serving.servable import Servable
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics


class Runner:
    """An instance whose batches end when the test says so."""

    behind = behind_caller = False
    process = None
    threads = 0

    def __init__(self, model=None):
        self.model = model
        self.available = True
        self.batch = None
        self.refuses = False

    def run_beside(self, loop, batch, done):
        assert self.available
        assert self.batch is None
        if self.refuses:
            raise RuntimeError("the batch could not be laid out")
        self.batch, self.done = list(batch), done
        self.arrays = join(batch) if len(batch) > 1 else batch[0].arrays

    def outputs(self):
        return {"y": self.arrays["x"] * 2}

    def finish(self, error=None, outputs=None):
        done, self.batch = self.done, None
        outputs = None if error else outputs or self.outputs()
        done(Outcome(1, 1, 1, outputs, error))

    def cancelled(self, item):
        pass

    def close(self):
        pass


class Breakable(Layout):
    """A layout that has room for a method which fails."""


class Accumulator(Runner):
    """A stateful model: its answer is the sum of its sequence so far."""

    def outputs(self):
        total = self.arrays["s_in"] + self.arrays["x"]
        return {"y": total, "s_out": total}


class Machine(RuleBasedStateMachine):
    """Requests that stand alone."""

    LEVEL = LevelPolicy(max_queue_size=6, timeout_s=0.05, allow_timeout_override=True)
    DELAYS = LevelPolicy(timeout_s=0.02, on_timeout="delay")
    POLICIES = (
        BatchPolicy(4, merge=True, level=LEVEL),
        BatchPolicy(4, merge=True, preferred_rows=(3,), max_delay_s=0.01, level=LEVEL),
        BatchPolicy(4, merge=True, max_delay_s=0.01, priority_levels=2, default_level=1,
                    levels={1: LEVEL, 2: DELAYS}),
        BatchPolicy(0),
        BatchPolicy(4, merge=True, pack=True, level=LEVEL),
        BatchPolicy(4, merge=True, level=LEVEL),
        BatchPolicy(4, merge=True, in_order=True, level=LEVEL),
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.clock.__enter__()
        self.loop = asyncio.new_event_loop()
        self.answers, self.tickets, self.cancelled = {}, {}, set()
        self.sharing, self.door = False, None
        self.left = False
        self.count = 0

    def signature(self, limit):
        return Signature(
            "m", [TensorRule("x", "FP32", (-1,))], [TensorRule("y", "FP32", (-1,))], limit
        )

    @initialize(which=st.sampled_from(range(7)), in_order=st.booleans())
    def make(self, which, in_order):
        self.policy = self.POLICIES[which]
        self.policy = replace(self.policy, in_order=in_order or self.policy.in_order)
        # The last: both run one model, which takes all cores or shares them.
        self.sharing = which == 5
        model = object() if self.sharing else None
        self.runners = [Runner(model), Runner(model)]
        pace, layout = None, None
        if which == 4:
            # A learnt delay, the longest; and all widths share a batch by padding.
            pace = Pace()
            pace._most, pace.delay_s = 9.0, 0.01
            layout = Breakable(padding=Padding((2,), {"x": 1}, {"y": 1}), row_buckets=(4,))
        if which == 6:
            limits = Limits(concurrency=8, client_concurrency=7)
            self.door = Door(Admission(limits, Expectation(2)))
        beside = Placement(allowed=False)
        self.serve(beside, pace=pace, layout=layout, door=self.door, adaptive=self.sharing)

    def serve(self, placement=None, **terms):
        async def make():
            return Servable(
                self.signature(4),
                "1",
                self.runners,
                Terms(self.policy, **terms),
                Statistics("m", "1"),
                placement=placement,
            )

        self.served = self.loop.run_until_complete(make())

    def tick(self):
        self.loop.run_until_complete(settle())

    def request(self, data, **parameters):
        at = self.count = self.count + 1
        tensor = InputTensor("x", "FP32", data.shape, data)
        return at, InferRequest("m", [tensor], id=str(at), parameters=parameters)

    def send(self, at, request, expected):
        def reply(answer):
            assert at not in self.answers, "answered twice"
            assert at not in self.cancelled, "answered after it was cancelled"
            self.answers[at] = (answer, expected)

        try:
            self.tickets[at] = self.served.submit(request, reply)
        except (Unavailable, InvalidArgument, InternalError) as error:
            self.answers[at] = (error, expected)

    @rule(
        rows=st.integers(1, 4),
        width=st.integers(1, 2),
        late=st.sampled_from([None, -1.0, 0.005, 0.5]),
        timeout=st.sampled_from([0, 3000, 60000]),
        priority=st.integers(0, 3),
    )
    def submit(self, rows, width, late, timeout, priority):
        data = np.full((rows, width), self.count + 1, np.float32)
        at, request = self.request(data, timeout=timeout, priority=priority)
        request.deadline = None if late is None else self.clock.now + late
        self.send(at, request, data * 2)

    @rule(seconds=st.sampled_from([0.0, 0.004, 0.011, 0.06]))
    def wait(self, seconds):
        self.clock.advance(seconds)
        self.tick()

    @rule(at=st.integers(1, 30))
    def cancel(self, at):
        if at in self.tickets and at not in self.answers and at not in self.cancelled:
            self.cancelled.add(at)
            self.tickets[at].cancel()

    @rule(which=st.integers(0, 1), how=st.sampled_from(["well", "well", "error", "odd", "short"]))
    def finish(self, which, how):
        runner = self.runners[which]
        if runner.batch is None:
            return
        if how == "well":
            runner.finish()
        elif how == "error":
            runner.finish(InternalError("broken"))
        elif how == "odd":
            runner.finish(outputs={"y": "no array at all"})
        elif len(runner.batch) > 1:
            # Whose rows are these?
            runner.finish(outputs={"y": np.zeros((sum(i.rows for i in runner.batch) + 1, 1))})

    @rule(which=st.integers(0, 1), refuses=st.booleans())
    def refuse(self, which, refuses):
        self.runners[which].refuses = refuses

    @rule(what=st.sampled_from(["push", "prepare"]))
    def break_once(self, what):
        """A bug of ours, met by the next one."""
        thing = self.served._queue if what == "push" else self.served._dispatcher._layout
        if thing is None or what in vars(thing):
            return

        def broken(*given):
            object.__delattr__(thing, what)
            raise RuntimeError("a bug")

        object.__setattr__(thing, what, broken)

    @rule(which=st.integers(0, 1))
    def die(self, which):
        runner = self.runners[which]
        if not runner.available:
            return
        runner.available = False
        self.served.instances_changed("dead", given_up=False)
        if runner.batch is not None:
            runner.finish(InstanceDied("dead"))
        self.served.instances_changed("dead", given_up=False)

    @rule(which=st.integers(0, 1))
    def come_back(self, which):
        self.runners[which].available = True
        self.served.instances_changed("", given_up=False)

    @rule()
    def give_up(self):
        if not any(runner.available for runner in self.runners):
            self.served.instances_changed("given up", given_up=True)

    @precondition(lambda self: self.count > 6)
    @rule(really=st.integers(0, 5))
    def leave(self, really):
        """Another version takes its place, which does not happen often."""
        if not really:
            self.left = True
            self.served.shut()

    def competing(self):
        """How many requests wait for nothing but an instance."""
        return self.served.pending()

    def starving(self):
        if self.sharing and any(runner.batch is not None for runner in self.runners):
            return False  # It may wait for the one that runs.
        idle = any(runner.available and runner.batch is None for runner in self.runners)
        return idle and self.competing()

    @invariant()
    def nobody_waits_for_a_free_instance_for_ever(self):
        if not self.count:
            return
        self.tick()
        if self.starving() and not self.left:
            # The longest delay of any policy here; for who leaves nobody is waited for.
            self.clock.advance(0.01 + 1e-6)
            self.tick()
        assert not self.starving()

    def teardown(self):
        try:
            if self.count:
                self.end()
        finally:
            self.loop.close()
            self.clock.__exit__()

    def end(self):
        for which in range(2):
            self.runners[which].refuses = False
            self.come_back(which)
        for _ in range(200):
            self.clock.advance(0.5)
            self.tick()
            busy = [runner for runner in self.runners if runner.batch is not None]
            if not busy and not self.served.pending():
                break
            for runner in busy:
                runner.finish()
        assert self.served.pending() == 0
        assert set(self.answers) | self.cancelled == set(range(1, self.count + 1))
        self.everything_is_given_back()
        for answer, expected in self.answers.values():
            if isinstance(answer, TuiliError):
                assert isinstance(
                    answer, InternalError | Unavailable | DeadlineExceeded | InvalidArgument
                )
            elif expected is not None:
                np.testing.assert_array_equal(answer.outputs[0].data, expected)
        self.loop.run_until_complete(self.served.close())

    def everything_is_given_back(self):
        dispatcher = self.served._dispatcher
        assert dispatcher.under_way == 0
        assert not +dispatcher._open
        assert sorted(map(id, dispatcher._free)) == sorted(map(id, self.runners))
        if self.served._order is not None:
            assert not self.served._order._line
        if self.door is not None:
            assert (self.door.admission._under_way, self.door.admission._by_client) == (0, {})


class SequenceMachine(Machine):
    """Requests of sequences: besides, each is answered with the sum of those answered before it."""

    @initialize(which=st.sampled_from([0.0, 0.01]))
    def make(self, which):
        self.policy = BatchPolicy(4, merge=True, max_delay_s=which)
        self.runners = [Accumulator(), Accumulator()]
        self.open = {}
        sequences = SequencePolicy(
            self.policy,
            slots=3,
            idle_s=30.0,
            controls=(Control("START", "start", np.dtype(np.int32)),),
            states=(StateTensor("s_in", "s_out", np.zeros((1, 1), np.float32)),),
        )

        self.serve(sequences=sequences)

    def competing(self):
        return len(self.served._queue._instances[0]._queue)

    @rule(
        sequence=st.sampled_from([1, 2, 3, "a", "b"]),
        ends=st.booleans(),
        late=st.sampled_from([None, None, 0.005, 0.5]),
    )
    def submit(self, sequence, ends, late):
        starts = sequence not in self.open
        data = np.ones((1, 1), np.float32)
        at, request = self.request(
            data, sequence_id=sequence, sequence_start=starts, sequence_end=ends
        )
        request.deadline = None if late is None else self.clock.now + late
        # Those that fail do not move the state on: how many did is known at the end.
        self.open.setdefault(sequence, []).append(at)
        self.send(at, request, None)
        gone = at in self.answers and isinstance(self.answers[at][0], InvalidArgument)
        if ends or gone:
            # One that was cancelled, or died with its instance, is begun anew.
            self.lives = [*getattr(self, "lives", []), self.open.pop(sequence)]

    def end(self):
        super().end()
        for life in [*getattr(self, "lives", []), *self.open.values()]:
            sums = [
                self.answers[at][0].outputs[0].data.item()
                for at in life
                if at in self.answers and not isinstance(self.answers[at][0], TuiliError)
            ]
            assert sums == sorted(set(sums)), "answers of a sequence out of order or mixed up"
            assert all(1 <= value <= len(life) for value in sums)


class Keeper(Runner):
    """A stateful model that keeps the sums of its sequences itself, by row or by their ids."""

    def __init__(self, by_row):
        super().__init__()
        self.by_row, self.sums = by_row, {}

    def outputs(self):
        told = zip(*(self.arrays[name].ravel() for name in ("x", "START", "READY", "ID")),
                   strict=True)  # fmt: skip
        found = []
        for row, (x, starts, ready, ident) in enumerate(told):
            key = row if self.by_row else ident
            if ready:
                # Of one whose first request failed nothing is known.
                self.sums[key] = x if starts else self.sums.get(key, 0) + x
            found.append(self.sums[key] if ready else 0)
        return {"y": np.array(found, np.float32).reshape(-1, 1)}


class OwnStateMachine(SequenceMachine):
    """As before, but what an instance knows of its sequences dies with it."""

    @initialize(direct=st.booleans())
    def make(self, direct):
        self.policy = BatchPolicy(4, merge=True)
        self.runners = [Keeper(direct), Keeper(direct)]
        self.open = {}
        sequences = SequencePolicy(
            self.policy,
            slots=4,
            instances=2,
            direct=direct,
            idle_s=30.0,
            controls=(
                Control("START", "start", np.dtype(np.int32)),
                Control("READY", "ready", np.dtype(np.int32)),
                Control("ID", "id", np.dtype(np.uint64)),
            ),
        )
        self.serve(sequences=sequences)

    def starving(self):
        if any(not runner.available for runner in self.runners):
            return False  # whose sequences wait for it
        queue = self.served._queue
        waiting = [
            life.instance for life in queue._lives() if life.waiting and life.current is None
        ]
        return any(at in waiting for at, runner in enumerate(self.runners) if runner.batch is None)

    @rule(which=st.integers(0, 1))
    def die(self, which):
        self.runners[which].sums.clear()
        super().die(which)


Machine.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)
SequenceMachine.TestCase.settings = settings(deadline=None, max_examples=30, stateful_step_count=40)
TestServable = Machine.TestCase
TestSequences = SequenceMachine.TestCase
OwnStateMachine.TestCase.settings = settings(deadline=None, max_examples=25, stateful_step_count=30)
TestOwnState = OwnStateMachine.TestCase
