"""Python models as people write them: how they end, and what they return."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import infer
from tests.server.test_hosts import CONFIG as PLAIN
from tests.server.test_hosts import add, ask, run
from tests.server.test_model_calls import CONFIG, HEAD
from tuili.errors import InternalError
from tuili.server.execution import hosts

ENDS = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([one(each, value_of(each))]) for each in requests]

    def finalize(self):
        {end}
"""
)
OURS = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        return {{'y': inputs['x']}}

    def close(self):
        {end}
"""


@pytest.mark.parametrize(
    ("source", "config"), [(ENDS, CONFIG), (OURS, PLAIN)], ids=["triton", "ours"]
)
def test_a_model_is_told_of_its_end_when_it_is_unloaded_and_when_the_server_ends(
    tmp_path, source, config
):
    ended = tmp_path / "ended"
    end = f"open({str(ended)!r}, 'a').write('x')"
    add(tmp_path / "models", source=source.format(end=end), config=config)

    async def scenario(dataplane):
        await dataplane.repository.unload("m")
        async with asyncio.timeout(20):
            while not ended.exists():  # noqa: ASYNC110 - another process is what is waited for
                await asyncio.sleep(0.01)
        await dataplane.repository.load("m")

    run(tmp_path / "models", scenario)
    assert ended.read_text() == "xx"


@pytest.mark.parametrize("end", ["raise ValueError('no')", "import time; time.sleep(60)"])
def test_a_model_that_cannot_end_is_ended(tmp_path, monkeypatch, end):
    monkeypatch.setattr(hosts, "END_S", -0.5)
    add(tmp_path, source=ENDS.format(end=end), config=CONFIG)

    async def scenario(dataplane):
        assert (await infer(dataplane, ask(3))).outputs[0].data.tolist() == [[3]]

    run(tmp_path, scenario)


RETURNS = """
import numpy as np
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("not printable")

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        {returns}
"""


@pytest.mark.parametrize(
    ("returns", "found"),
    [
        ("return {'y': np.array([['a', 'bcd']])}", [b"a", b"bcd"]),
        ("return {'y': np.array([[b'a', b'bcd']])}", [b"a", b"bcd"]),
        ("return {'y': [[1.0]]}", "NumPy arrays, got list for output 'y'"),
        ("return {'z': inputs['x']}", "returned 'z'; the outputs that .* declares are 'y'"),
        ("return None", "a dictionary of NumPy arrays, got NoneType"),
        ("raise Odd()", "Odd that cannot be printed"),
    ],
)
def test_what_a_model_returns_is_taken_or_said_to_be_wrong(tmp_path, returns, found):
    config = PLAIN
    if isinstance(found, list):
        config = PLAIN.replace('"y" data_type: TYPE_FP32', '"y" data_type: TYPE_STRING')
    add(tmp_path, source=RETURNS.format(returns=returns), config=config)

    async def scenario(dataplane):
        if isinstance(found, list):
            (output,) = (await infer(dataplane, ask(1))).outputs
            assert np.asarray(output.data).ravel().tolist() == found
        else:
            with pytest.raises(InternalError, match=found):
                await infer(dataplane, ask(1))

    run(tmp_path, scenario)
