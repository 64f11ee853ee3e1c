"""A state machine over queue, cancellation, timeouts, failing and dying instances.

Whatever happens in whatever order: each request is answered at most once, with its own rows or an
error, and never forgotten.
"""

import asyncio

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tuili.errors import DeadlineExceeded, InternalError, TuiliError, Unavailable
from tuili.server.execution import InstanceDied, Outcome, join
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy
from tuili.server.servable import Servable
from tuili.server.telemetry.statistics import Statistics


class Runner:
    """An instance whose batches end when the test says so."""

    model = None

    def __init__(self):
        self.available = True
        self.batch = None

    def run_beside(self, loop, batch, done):
        assert self.available
        assert self.batch is None
        self.batch, self.done = list(batch), done
        self.arrays = join(batch) if len(batch) > 1 else batch[0].arrays

    def finish(self, error=None):
        done, arrays, self.batch = self.done, self.arrays, None
        outputs = None if error else {"y": arrays["x"] * 2}
        done(Outcome(1, 1, 1, outputs, error))

    def close(self):
        pass


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.runners = [Runner(), Runner()]
        self.answers, self.tickets, self.cancelled = {}, {}, set()
        self.count = 0
        self.loop.run_until_complete(self.make())

    async def make(self):
        rules = [TensorRule("x", "FP32", (-1,))], [TensorRule("y", "FP32", (-1,))]
        self.served = Servable(
            Signature("m", *rules, 4),
            "1",
            self.runners,
            BatchPolicy(max_rows=4, merge=True, level=LevelPolicy(max_queue_size=6)),
            Statistics("m", "1"),
        )

    def tick(self):
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(rows=st.integers(1, 4), width=st.integers(1, 2), late=st.booleans())
    def submit(self, rows, width, late):
        at = self.count = self.count + 1
        data = np.full((rows, width), at, np.float32)
        request = InferRequest("m", [InputTensor("x", "FP32", data.shape, data)], id=str(at))
        request.deadline = 1e-9 if late else None

        def reply(answer):
            assert at not in self.answers
            assert at not in self.cancelled
            self.answers[at] = (answer, data)

        try:
            self.tickets[at] = self.served.submit(request, reply)
        except Unavailable as error:
            self.answers[at] = (error, data)

    @rule()
    def wait(self):
        self.tick()

    @rule(at=st.integers(1, 30))
    def cancel(self, at):
        if at in self.tickets and at not in self.answers and at not in self.cancelled:
            self.cancelled.add(at)
            self.tickets[at].cancel()

    @rule(which=st.integers(0, 1), fails=st.booleans())
    def finish(self, which, fails):
        if self.runners[which].batch is not None:
            self.runners[which].finish(InternalError("broken") if fails else None)

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

    @invariant()
    def nobody_waits_for_a_free_instance_for_ever(self):
        self.tick()
        self.tick()
        idle = any(runner.available and runner.batch is None for runner in self.runners)
        assert not (idle and self.served.pending())

    def teardown(self):
        for which in range(2):
            self.come_back(which)
        for _ in range(200):
            self.tick()
            for runner in self.runners:
                if runner.batch is not None:
                    runner.finish()
        assert self.served.pending() == 0
        assert set(self.answers) | self.cancelled == set(range(1, self.count + 1))
        for answer, data in self.answers.values():
            if isinstance(answer, TuiliError):
                assert isinstance(answer, InternalError | Unavailable | DeadlineExceeded)
            else:
                np.testing.assert_array_equal(answer.outputs[0].data, data * 2)
        self.loop.run_until_complete(self.served.close())
        self.loop.close()


Machine.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)
TestServable = Machine.TestCase
