"""Elastic instances, their rate limits and their cores, on servables with made-up models."""

import asyncio
import json
import os

import pytest

from tests.server.test_dataplane import add, plane
from tests.server.test_servable import Answers, Doubler, ask
from tuili.server.execution.instances import Instance
from tuili.server.loading.elastic import Elastic, remembered
from tuili.server.loading.instances import claims_of, cores_of
from tuili.server.loading.rehearsing import NewInstances
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.forecast import Forecast
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.resources import Claim, Resources
from tuili.server.scheduling.scaling import Elasticity, Scaler
from tuili.server.serving.servable import Servable
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics


def servable(models, *, resources=None, amount=1):
    signature = Signature("m", [TensorRule("x", "FP32", (2,))], [TensorRule("y", "FP32", (2,))], 8)
    instances = [Instance(model, "m") for model in models]
    claims = {each: Claim({"r": amount}) for each in instances} if resources else None
    return Servable(
        signature,
        "1",
        instances,
        Terms(BatchPolicy(8)),
        Statistics("m", "1"),
        placement=Placement(allowed=False),
        resources=resources,
        claims=claims,
    )


def test_instances_come_with_the_load_and_go_without_it(tmp_path):
    async def scenario():
        served = servable([Doubler()])
        made = []

        def another(number):
            made.append(Doubler())
            return [Instance(made[-1], f"m-{number}")], None

        memory = tmp_path / "arrivals" / "m.json"
        scaler = Scaler(Elasticity(1, 3, lead_s=5, patience_s=20), Forecast(100.0, 10))
        elastic = Elastic(served, scaler, another, memory)
        second, counts = 0.0, []
        for load_s in [0.9] * 10 + [0.0] * 60:
            # What the statistics say of this second: 10 requests that kept an instance 0.9 s.
            if load_s:
                served.statistics.success.count += 10
                served.statistics.infer_ns.record(int(load_s * 2 * 1e9))
            second += 1
            await elastic.tick(second, second)
            counts.append(elastic.instances)
        assert max(counts) == 3
        assert counts[-1] == 1
        assert all(model.closed for model in made)
        answers = Answers()
        served.submit(ask(1), answers.take(0))
        await answers.wait(1)
        await elastic.stop()
        assert json.loads(memory.read_text())["usual"]
        assert remembered(memory).dump() == scaler.forecast.dump()
        await served.close()

    asyncio.run(scenario())


def test_an_instance_answers_what_was_recorded_before_it_takes_requests():
    async def scenario():
        first, second = Doubler(), Doubler()
        served = servable([first])
        seen = []

        def another(number):
            return [Instance(second, "m")], None

        async def recorded(runners):
            seen.append(len(served._dispatcher.instances))
            await NewInstances(served, runners).rehearse(ask(1, 3))

        scaler = Scaler(Elasticity(1, 2))
        elastic = Elastic(served, scaler, another, rehearse=recorded)
        for at in range(3):
            served.statistics.success.count += 10
            served.statistics.infer_ns.record(int(1.8e9))
            await elastic.tick(float(at), float(at))
        assert elastic.instances == 2
        assert seen == [1]
        assert (first.rows, second.rows) == ([], [3])
        await served.close()

    asyncio.run(scenario())


def test_models_that_share_a_resource_run_one_at_a_time():
    async def scenario():
        resources, answers = Resources(), Answers()
        models = [Doubler(), Doubler()]
        for model in models:
            model.gate.clear()
        served = [servable([model], resources=resources) for model in models]
        for at, each in enumerate(served):
            each.submit(ask(at), answers.take(at))
            await asyncio.sleep(0.001)
        assert [each.pending() for each in served] == [0, 1]
        models[0].gate.set()
        models[1].gate.set()
        await answers.wait(2)
        for each in served:
            await each.close()
        assert resources.available("r") == 0

    asyncio.run(scenario())


def test_a_cancelled_request_stops_waiting_for_resources():
    async def scenario():
        resources, answers = Resources({"r": 2}), Answers()
        models = [Doubler() for _ in range(3)]
        models[0].gate.clear()
        running, large, small = (
            servable([model], resources=resources, amount=amount)
            for model, amount in zip(models, (1, 2, 1), strict=True)
        )
        running.submit(ask(0), answers.take(0))
        await asyncio.sleep(0)
        ticket = large.submit(ask(1), answers.take(1))
        await asyncio.sleep(0)
        small.submit(ask(2), answers.take(2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert small.pending() == 1, "the large claim is before it"
        ticket.cancel()
        await answers.wait(1)
        assert set(answers.found) == {2}
        models[0].gate.set()
        await answers.wait(2)
        for each in (running, large, small):
            await each.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "expected"), [("0", [{0}, {0}]), ("0-1;1", [{0, 1}, {1}]), ("0,2-3", [{0, 2, 3}] * 2)]
)
def test_each_instance_has_its_cores(text, expected):
    config = ModelConfig("m", parameters={"cpu_cores": text})
    assert [cores_of(config, number) for number in range(2)] == expected


def test_an_instance_runs_on_its_cores():
    core = min(os.sched_getaffinity(0))

    class Where(Doubler):
        def run(self, inputs):
            self.cores = os.sched_getaffinity(0)
            return super().run(inputs)

    async def scenario():
        model, answers = Where(), Answers()
        served = servable([])
        served.grow([Instance(model, "m", frozenset({core}))], None)
        served.submit(ask(1), answers.take(0))
        await answers.wait(1)
        assert model.cores == {core}
        await served.close()

    asyncio.run(scenario())


def test_claims_follow_the_groups():
    limiter = {"resources": [{"name": "r", "count": 3}], "priority": 2}
    groups = [{"count": 2, "rate_limiter": limiter}, {"count": 1}, {"count": 4, "passive": True}]
    found = claims_of(ModelConfig("m", raw={"instance_group": groups}))
    assert found == (Claim({"r": 3}, 2), Claim({"r": 3}, 2), Claim({}, 1))


def test_an_elastic_model_needs_room_above_what_is_configured(tmp_path):
    config = 'backend: "identity"\ninput { name: "a" data_type: TYPE_FP32 dims: [ 1 ] }\n'
    config += 'output { name: "b" data_type: TYPE_FP32 dims: [ 1 ] }\ninstance_group { count: 2 }\n'
    add(tmp_path, "m", 1, config=config + 'parameters { key: "max_instances" '
        'value { string_value: "1" } }')  # fmt: skip

    async def scenario():
        dataplane = plane(tmp_path)
        await dataplane.start()
        assert "at least the 2 configured" in str(dataplane.repository.failures())
        await dataplane.close(5)

    asyncio.run(scenario())


@pytest.mark.parametrize("stays", [False, True])
def test_an_instance_that_goes_ends_what_it_runs_and_begins_nothing_unless_it_stays(stays):
    async def scenario():
        first, second = Doubler(), Doubler()
        served = servable([first])
        added = [Instance(second, "m-1")]
        served.grow(added, None)
        answers = Answers()
        first.gate.clear()
        second.gate.clear()
        for at in (1, 2, 3):
            served.submit(ask(at), answers.take(at))
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # a batch of its own, as long as there is an instance
        assert served.pending() == 1
        assert not served.shrink(added, None)
        second.gate.set()
        await answers.wait(1)
        assert served.pending() == 1
        if stays:
            served.keep()
            await answers.wait(2)
            assert len(second.rows) == 2
        else:
            assert served.shrink(added, None)
        first.gate.set()
        await answers.wait(3)
        assert len(first.rows) + len(second.rows) == 3
        await served.close()
        for each in added:
            each.close()

    asyncio.run(scenario())
