"""Models that share resources: what a cancelled request waited for is others' at once."""

import asyncio

import numpy as np

from tests.server.fake_clock import settle
from tests.server.test_servable_machine import Runner
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.resources import Claim, Resources
from tuili.server.serving.servable import Servable
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics


def served(name, runner, resources):
    signature = Signature(
        name, [TensorRule("x", "FP32", (-1,))], [TensorRule("y", "FP32", (-1,))], 4
    )
    return Servable(
        signature,
        "1",
        [runner],
        Terms(BatchPolicy(4, merge=True)),
        Statistics(name, "1"),
        resources=resources,
        claims={runner: Claim({"memory": 1})},
    )


def ask(servable):
    data = np.ones((1, 2), np.float32)
    request = InferRequest(servable.signature.model, [InputTensor("x", "FP32", (1, 2), data)])
    return servable.submit(request, lambda answer: None)


def test_a_cancelled_request_gives_up_its_place_in_the_wait_for_resources():
    async def scenario():
        resources = Resources({"memory": 1})
        runners = [Runner(), Runner(), Runner()]
        models = [served(f"m{at}", each, resources) for at, each in enumerate(runners)]
        tickets = []
        for model in models:
            tickets.append(ask(model))
            await settle()
        assert [runner.batch is not None for runner in runners] == [True, False, False]
        tickets[1].cancel()
        await settle()
        runners[0].finish()
        await settle()
        assert [runner.batch is not None for runner in runners] == [False, False, True]
        runners[2].finish()
        await settle()
        for model in models:
            await model.close()

    asyncio.run(scenario())


def test_an_instance_that_comes_later_claims_as_those_before_it_until_it_goes():
    async def scenario():
        resources = Resources({"memory": 2})
        first, second = Runner(), Runner()
        model = served("m", first, resources)
        for _ in range(8):
            ask(model)
        model.grow([second], None)
        await settle()
        assert [runner.batch is not None for runner in (first, second)] == [True, True]
        rival = Runner()
        other = served("other", rival, resources)
        ask(other)
        await settle()
        assert rival.batch is None
        second.finish()
        await settle()
        assert rival.batch is not None
        assert model.shrink([second], None)
        first.finish()
        rival.finish()
        await settle()
        await model.close()
        await other.close()

    asyncio.run(scenario())
