"""Limits and degradation rules through the data plane; time is the test's where it matters."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, plane, run
from tuili.errors import Overloaded
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
backend: "identity"
max_batch_size: 1
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }}
{more}
"""


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def put(tmp_path, name, more=""):
    add(tmp_path, name, 1, config=CONFIG.format(more=more))
    return tmp_path


def ask(model="m", value=1.0, **more):
    data = np.full((1, 2), value, np.float32)
    return InferRequest(model, [InputTensor("INPUT0", "FP32", data.shape, data)], **more)


def expect(dataplane, model, seconds):
    """Let the model believe that a request takes so long."""
    dataplane._live[model][""]._door.admission.expectation.ran(1, seconds)


async def both(dataplane, first, second):
    return await asyncio.gather(
        infer(dataplane, first), infer(dataplane, second), return_exceptions=True
    )


def test_a_model_admits_as_many_as_it_may(tmp_path):
    async def scenario(dataplane):
        for _ in range(3):
            first, second = await both(dataplane, ask(), ask(id="7"))
            assert first.model == "m"
            assert isinstance(second, Overloaded)
            assert str(second).startswith("[request id: 7] Exceeds maximum number of requests")
        ticket = dataplane.submit(ask(), lambda answer: None)
        ticket.cancel()
        assert (await infer(dataplane, ask())).model == "m"

    run(put(tmp_path, "m", parameter("max_concurrency", 1)), scenario)


class Origin:
    def __init__(self, address):
        self.address = lambda: address

    def header(self, name):
        return ""


@pytest.mark.parametrize("by", ["transport", "parameter"])
def test_clients_are_told_apart(tmp_path, by):
    def of(client):
        if by == "transport":
            return ask(origin=Origin(client))
        return ask(parameters={"client_id": client})

    async def scenario(dataplane):
        first, second = await both(dataplane, of("a"), of("a"))
        assert isinstance(second, Overloaded)
        first, second = await both(dataplane, of("a"), of("b"))
        assert first.model == second.model == "m"

    run(put(tmp_path, "m", parameter("max_client_concurrency", 1)), scenario)


def test_what_would_be_late_goes_to_the_smaller_model(tmp_path):
    async def scenario(dataplane):
        expect(dataplane, "m", 5.0)
        first, second = await both(dataplane, ask(value=1), ask(value=2))
        assert (first.model, second.model) == ("m", "small")
        np.testing.assert_array_equal(second.outputs[0].data, [[2, 2]])
        assert 'tuili_requests_degraded{model="m",version="1"} 1' in dataplane.metrics_text()

    put(tmp_path, "small", parameter("degrade_to", "m") + parameter("max_wait_ms", 1))
    more = parameter("max_wait_ms", 50) + parameter("degrade_to", "small")
    run(put(tmp_path, "m", more), scenario)


def test_two_models_that_degrade_to_each_other_refuse_in_the_end(tmp_path):
    async def scenario(dataplane):
        for model in ("m", "n"):
            expect(dataplane, model, 5.0)
        answers = await asyncio.gather(
            *(infer(dataplane, ask()) for _ in range(4)), return_exceptions=True
        )
        assert [getattr(each, "model", "refused") for each in answers] == [
            "m", "n", "refused", "refused",
        ]  # fmt: skip

    put(tmp_path, "n", parameter("degrade_to", "m") + parameter("max_wait_ms", 1))
    run(put(tmp_path, "m", parameter("degrade_to", "n") + parameter("max_wait_ms", 1)), scenario)


@pytest.mark.parametrize(
    ("key", "value"), [("max_wait_ms", "soon"), ("max_rate", "-1"), ("degrade_to", "m")]
)
def test_limits_that_do_not_load(tmp_path, key, value):
    async def scenario():
        dataplane = plane(put(tmp_path, "m", parameter(key, value)))
        await dataplane.start()
        assert key in str(dataplane.repository.failures())
        await dataplane.close(5)

    asyncio.run(scenario())


def test_an_answer_past_its_time_stands_in_when_there_is_no_time(tmp_path):
    more = "response_cache { enable: true }\n" + parameter("max_wait_ms", 1)
    more += parameter("degrade_cached", "true")

    async def scenario(dataplane):
        first = await infer(dataplane, ask(value=3))
        for _ in range(60):  # one slow run alone is noise
            expect(dataplane, "m", 5.0)
        _, again = await both(dataplane, ask(value=4), ask(value=3))
        np.testing.assert_array_equal(again.outputs[0].data, first.outputs[0].data)
        (stats,) = dataplane.model_statistics("m")["model_stats"]
        assert stats["execution_count"] == 2
        _, unknown = await both(dataplane, ask(value=5), ask(value=6))
        assert isinstance(unknown, Overloaded)

    # No entry lives long enough to be given out as fresh.
    run(put(tmp_path, "m", more), scenario, response_cache_ttl_s=1e-9)
