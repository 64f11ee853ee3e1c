"""Servable: queue, batches, split, statistics, cancellation and drain, on a real loop."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Overloaded,
    TuiliError,
    Unavailable,
)
from tuili.server.execution.instances import Instance
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.scheduling.admission import Admission, Expectation, Limits
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy
from tuili.server.serving.admitting import Door
from tuili.server.serving.servable import Servable
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics

MERGE = BatchPolicy(max_rows=8, merge=True)


class Doubler:
    """y = 2 x; notes the rows of every run; may hold, fail or misbehave."""

    inputs = outputs = ()

    def __init__(self):
        self.rows = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison = None
        self.closed = False

    def run(self, inputs):
        assert self.gate.wait(10)
        x = inputs["x"]
        self.rows.append(len(x))
        if self.poison is not None and (x == self.poison).any():
            raise InvalidArgument("poison")
        return {"y": x * 2}

    def close(self):
        self.closed = True


class Always(Placement):
    def __init__(self, inline):
        super().__init__()
        self._answer = inline

    def inline(self, size):
        return self._answer


def servable(model, policy=MERGE, *, inline=True, dims=(2,), reshape=None, door=None):
    signature = Signature(
        "m",
        [TensorRule("x", "FP32", dims)],
        [TensorRule("y", "FP32", dims, reshape=reshape, labels=("a", "b"))],
        policy.max_rows,
    )
    models = model if isinstance(model, list) else [model]
    return Servable(
        signature,
        "1",
        [Instance(each, "m-1") for each in models],
        Terms(policy, door=door),
        Statistics("m", "1"),
        placement=Always(inline),
    )


def ask(value, rows=1, width=2, **more):
    data = np.full((rows, width), value, np.float32)
    return InferRequest("m", [InputTensor("x", "FP32", data.shape, data)], id=str(value), **more)


class Answers:
    """Replies by the order of their requests."""

    def __init__(self):
        self.found = {}
        self.order = []

    def take(self, at):
        def reply(answer):
            assert at not in self.found
            self.found[at] = answer
            self.order.append(at)

        return reply

    async def wait(self, number):
        async with asyncio.timeout(10):
            while len(self.found) < number:  # noqa: ASYNC110 - the loop is what is tested
                await asyncio.sleep(0)


def check(answer, value, rows=1):
    assert not isinstance(answer, TuiliError), answer
    np.testing.assert_array_equal(answer.outputs[0].data, np.full((rows, 2), 2.0 * value))
    assert (answer.id, answer.model, answer.version) == (str(value), "m", "1")


def test_a_request_without_rows_does_not_end_the_joining_of_others():
    async def scenario():
        model, answers = Doubler(), Answers()
        served = servable(model)
        for at, rows in enumerate((1, 0, 1, 0)):
            served.submit(ask(at, rows), answers.take(at))
        await answers.wait(4)
        for at in (4, 5):
            served.submit(ask(at), answers.take(at))
        await answers.wait(6)
        assert sorted(model.rows) == [0, 0, 2, 2]
        assert [len(answers.found[at].outputs[0].data) for at in range(6)] == [1, 0, 1, 0, 1, 1]
        await served.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("inline", [True, False])
def test_what_one_tick_brings_is_one_batch(inline):
    async def scenario():
        model, answers = Doubler(), Answers()
        served = servable(model, inline=inline)
        for at in range(5):
            served.submit(ask(at, rows=1 + at % 2), answers.take(at))
        await answers.wait(5)
        for at in range(5):
            check(answers.found[at], at, 1 + at % 2)
        assert model.rows == [7]
        stats = served.statistics
        stats.settle()
        assert (stats.inference_count, stats.execution_count, stats.success.count) == (7, 1, 5)
        assert stats.batches[7].infer.count == 1
        assert stats.left == {"idle": 1}
        await served.close()

    asyncio.run(scenario())


def test_while_an_instance_is_busy_the_next_batch_grows():
    async def scenario():
        model, answers = Doubler(), Answers()
        model.gate.clear()
        served = servable(model, inline=False)
        for at in range(4):
            served.submit(ask(at), answers.take(at))
            await asyncio.sleep(0)
        assert served.pending() == 3
        model.gate.set()
        await answers.wait(4)
        assert model.rows == [1, 3]
        await served.close()

    asyncio.run(scenario())


def test_instances_run_side_by_side():
    async def scenario():
        models, answers = [Doubler(), Doubler()], Answers()
        for model in models:
            model.gate.clear()
        served = servable(models, BatchPolicy(max_rows=8), inline=False)
        for at in range(2):
            served.submit(ask(at), answers.take(at))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert served.pending() == 0
        for model in models:
            model.gate.set()
        await answers.wait(2)
        assert [model.rows for model in models] == [[1], [1]]
        await served.close()
        assert all(model.closed for model in models)

    asyncio.run(scenario())


def test_one_bad_request_does_not_fail_its_neighbours():
    async def scenario():
        model, answers = Doubler(), Answers()
        model.poison = 1
        served = servable(model)
        for at in range(3):
            served.submit(ask(at), answers.take(at))
        await answers.wait(3)
        check(answers.found[0], 0)
        check(answers.found[2], 2)
        assert isinstance(answers.found[1], InvalidArgument)
        assert served.statistics.failures["BACKEND"] == 1
        await served.close()

    asyncio.run(scenario())


def test_a_model_that_mixes_rows_is_run_request_by_request():
    class Sum(Doubler):
        def run(self, inputs):
            self.rows.append(len(inputs["x"]))
            return {"y": inputs["x"].sum(axis=0, keepdims=True)}

    async def scenario():
        model, answers = Sum(), Answers()
        served = servable(model)
        for at in range(2):
            served.submit(ask(at), answers.take(at))
        await answers.wait(2)
        assert [answers.found[at].outputs[0].data[0, 0] for at in range(2)] == [0, 1]
        for at in (2, 3):
            served.submit(ask(at), answers.take(at))
        await answers.wait(4)
        assert model.rows == [2, 1, 1, 1, 1]
        await served.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [RuntimeError("boom"), ZeroDivisionError("boom")])
def test_a_back_ends_own_exception_becomes_an_error_of_ours(error):
    class Broken(Doubler):
        def run(self, inputs):
            raise error

    async def scenario():
        answers = Answers()
        served = servable(Broken())
        served.submit(ask(0), answers.take(0))
        await answers.wait(1)
        assert isinstance(answers.found[0], InternalError)
        assert "boom" in str(answers.found[0])
        await served.close()

    asyncio.run(scenario())


def test_a_cancelled_request_frees_its_place_and_is_never_answered():
    async def scenario():
        model, answers = Doubler(), Answers()
        model.gate.clear()
        policy = BatchPolicy(max_rows=8, merge=True, level=LevelPolicy(max_queue_size=1))
        served = servable(model, policy, inline=False)
        running = served.submit(ask(0), answers.take(0))
        await asyncio.sleep(0)
        waiting = served.submit(ask(1), answers.take(1))
        with pytest.raises(Overloaded, match=r"\[request id: 2\] Exceeds maximum queue size"):
            served.submit(ask(2), answers.take(2))
        waiting.cancel()
        waiting.cancel()
        served.submit(ask(3), answers.take(3))
        running.cancel()
        model.gate.set()
        await answers.wait(1)
        assert set(answers.found) == {3}
        assert served.statistics.failures == {
            "REJECTED": 1,
            "CANCELED": 2,
            "BACKEND": 0,
            "OTHER": 0,
        }
        await served.close()

    asyncio.run(scenario())


def test_an_answer_that_waits_for_its_turn_is_not_given_to_who_has_left():
    async def scenario():
        first, second = Doubler(), Doubler()
        second.gate.clear()  # it is asked first
        answers, door = Answers(), Door(Admission(Limits(concurrency=2), Expectation(2)))
        policy = BatchPolicy(max_rows=1, in_order=True)
        served = servable([first, second], policy, inline=False, door=door)
        one, two = (served.submit(ask(at), answers.take(at)) for at in (1, 2))
        async with asyncio.timeout(10):
            while two.reply is not None:  # noqa: ASYNC110 - a thread is what is waited for
                await asyncio.sleep(0)
        assert one.reply is not None
        for ticket in (two, one):
            ticket.cancel()
        second.gate.set()
        assert await served.drain(10)
        assert (answers.found, door.admission._under_way) == ({}, 0)
        await served.close()

    asyncio.run(scenario())


def test_a_request_expires_in_the_queue_without_another_arriving():
    async def scenario():
        model, answers = Doubler(), Answers()
        model.gate.clear()
        policy = BatchPolicy(max_rows=8, merge=True, level=LevelPolicy(timeout_s=0.01))
        served = servable(model, policy, inline=False)
        served.submit(ask(0), answers.take(0))
        await asyncio.sleep(0)
        served.submit(ask(1), answers.take(1))
        await answers.wait(1)
        assert isinstance(answers.found[1], DeadlineExceeded)
        assert str(answers.found[1]) == "Request timeout expired"
        model.gate.set()
        await served.close()

    asyncio.run(scenario())


def test_a_deadline_holds_for_the_run_too():
    async def scenario():
        model, answers = Doubler(), Answers()
        served = servable(model)
        served.submit(ask(0, deadline=1e-9), answers.take(0))
        await answers.wait(1)
        assert isinstance(answers.found[0], DeadlineExceeded)
        await served.close()

    asyncio.run(scenario())


def test_a_delay_fills_the_batch():
    async def scenario():
        model, answers = Doubler(), Answers()
        served = servable(model, BatchPolicy(max_rows=2, merge=True, max_delay_s=5))
        served.submit(ask(0), answers.take(0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not answers.found
        served.submit(ask(1), answers.take(1))
        await answers.wait(2)
        assert model.rows == [2]
        served.statistics.settle()
        assert served.statistics.left == {"full": 1}
        await served.close()

    asyncio.run(scenario())


def test_a_delay_ends():
    async def scenario():
        model, answers = Doubler(), Answers()
        served = servable(model, BatchPolicy(max_rows=2, merge=True, max_delay_s=0.01))
        served.submit(ask(0), answers.take(0))
        await answers.wait(1)
        served.statistics.settle()
        assert served.statistics.left == {"timeout": 1}
        await served.close()

    asyncio.run(scenario())


def test_drain_refuses_the_new_and_answers_the_old():
    async def scenario():
        model, answers = Doubler(), Answers()
        model.gate.clear()
        served = servable(model, BatchPolicy(max_rows=1), inline=False)
        for at in range(3):
            served.submit(ask(at), answers.take(at))
        await asyncio.sleep(0)
        assert not await served.drain(0.001)
        with pytest.raises(Unavailable, match="is not at ready state"):
            served.submit(ask(9), answers.take(9))
        model.gate.set()
        assert await served.drain(10)
        assert set(answers.found) == {0, 1, 2}
        await served.close()

    asyncio.run(scenario())


def test_who_leaves_does_not_wait_for_others_to_join_a_batch():
    async def scenario():
        model, answers = Doubler(), Answers()
        served = servable(model, BatchPolicy(8, merge=True, preferred_rows=(8,), max_delay_s=1e9))
        for at in range(3):
            served.submit(ask(at), answers.take(at))
        assert not await served.drain(0)
        assert await served.drain(10)
        assert (set(answers.found), model.rows) == ({0, 1, 2}, [3])
        await served.close()

    asyncio.run(scenario())


def test_classification_of_an_output():
    async def scenario():
        answers = Answers()
        served = servable(Doubler())
        wanted = [RequestedOutput("y", {"classification": 1})]
        served.submit(ask(1, outputs=wanted), answers.take(0))
        await answers.wait(1)
        output = answers.found[0].outputs[0]
        assert (output.datatype, output.shape) == ("BYTES", (1, 1))
        assert output.data.tolist() == [[b"2.000000:0:a"]]
        await served.close()

    asyncio.run(scenario())


def test_only_the_outputs_asked_for_in_their_order():
    class Two(Doubler):
        def run(self, inputs):
            return {"a": inputs["x"], "b": inputs["x"] + 1, "y": inputs["x"] + 2}

    async def scenario():
        answers = Answers()
        served = servable(Two())
        for name in ("a", "b"):
            served.signature.outputs[name] = TensorRule(name, "FP32", (2,))
        wanted = [RequestedOutput("b"), RequestedOutput("y")]
        served.submit(ask(0, outputs=wanted), answers.take(0))
        await answers.wait(1)
        assert [output.name for output in answers.found[0].outputs] == ["b", "y"]
        await served.close()

    asyncio.run(scenario())


Act = st.sampled_from(["submit", "submit", "submit", "tick", "cancel"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(Act, st.integers(1, 5), st.integers(1, 2)), max_size=40),
    st.booleans(),
    st.sampled_from(
        [MERGE, BatchPolicy(max_rows=8), BatchPolicy(8, merge=True, preferred_rows=(3,))]
    ),
    st.sets(st.integers(0, 39), max_size=3),
)
def test_every_response_belongs_to_its_request(acts, inline, policy, poisoned):
    """Whatever is merged, cancelled or failing: answered once, with its own rows, or cancelled."""

    class Picky(Doubler):
        def run(self, inputs):
            if np.isin(inputs["x"], list(poisoned)).any():
                raise InvalidArgument("poison")
            return {"y": inputs["x"] * 2}

    async def scenario():
        answers, tickets, rows_of, cancelled = Answers(), {}, {}, set()
        served = servable([Picky(), Picky()], policy, inline=inline, dims=(-1,))
        for at, (act, rows, width) in enumerate(acts):
            if act == "submit":
                tickets[at] = served.submit(ask(at, rows, width), answers.take(at))
                rows_of[at] = (rows, width)
            elif act == "tick":
                await asyncio.sleep(0)
            elif tickets:
                victim = max(tickets)
                if victim not in answers.found and victim not in cancelled:
                    tickets[victim].cancel()
                    cancelled.add(victim)
        assert await served.drain(10)
        assert set(answers.found) | cancelled == set(tickets)
        assert not set(answers.found) & cancelled
        for at, answer in answers.found.items():
            if at in poisoned:
                assert isinstance(answer, InvalidArgument)
            else:
                assert not isinstance(answer, TuiliError)
                expected = np.full(rows_of[at], 2.0 * at)
                np.testing.assert_array_equal(answer.outputs[0].data, expected)
        await served.close()

    asyncio.run(scenario())
