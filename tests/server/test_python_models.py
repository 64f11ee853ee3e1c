"""Python models as people write them: how they end, and what they return."""

import asyncio
import re

import numpy as np
import pytest

from tests.server.test_dataplane import infer
from tests.server.test_dataplane import run as run_all
from tests.server.test_hosts import CONFIG as PLAIN
from tests.server.test_hosts import add, ask, run
from tests.server.test_model_calls import CONFIG, HEAD
from tuili.errors import InternalError, TuiliError
from tuili.server.execution import host_child

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
    monkeypatch.setattr(host_child, "END_S", -0.5)
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


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class Model:\n    def run(self, inputs): return {'y': inputs['x']}", ""),
        ("class Model:\n    def __init__(self, a, b): pass\n    def run(self, x): pass",
         r"made as Model\(parameters\) or Model\(\), but its __init__ takes \(a, b\)"),
        ("class Model:\n    def runs(self, inputs): pass",
         r"class Model has no run\(inputs\)\. Did you mean 'runs'"),
    ],
)  # fmt: skip
def test_how_a_class_is_made_is_found_at_load(tmp_path, source, found):
    add(tmp_path, source=source, config=PLAIN)

    async def scenario(dataplane):
        if not found:
            assert (await infer(dataplane, ask(1))).outputs[0].data.tolist() == [[1]]
        return dataplane.repository.failures()

    failures = run_all(tmp_path, scenario)
    assert bool(failures) == bool(found)
    assert re.search(found, failures.get("m", ""))


COUNTS = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        (request,) = requests
        x = value_of(request)
        if not x:
            return [pb.InferenceResponse([one(request, 0.0)])]
        ask = pb.InferenceRequest(
            model_name="m", inputs=[one(request, x - 1, "x")], requested_output_names=["y"]
        )
        answer = ask.exec()
        if answer.has_error():
            return [pb.InferenceResponse(error=answer.error())]
        y = pb.get_output_tensor_by_name(answer, "y").as_numpy()[0, 0]
        return [pb.InferenceResponse([one(request, y + 1)])]
"""
)


@pytest.mark.parametrize("instances", [1, 2])
def test_a_model_that_waits_for_its_only_instance_is_told_so(tmp_path, instances):
    group = f"\ninstance_group [ {{ count: {instances} }} ]"
    add(tmp_path, source=COUNTS, config=CONFIG.replace("dynamic_batching { }", "") + group)

    async def scenario(dataplane):
        assert (await infer(dataplane, ask(0))).outputs[0].data.tolist() == [[0]]
        if instances == 1:
            with pytest.raises(
                TuiliError, match="all of its instances wait for answers that wait for this one"
            ):
                await infer(dataplane, ask(1))
        else:
            assert (await infer(dataplane, ask(1))).outputs[0].data.tolist() == [[1]]
        assert (await infer(dataplane, ask(0))).outputs[0].data.tolist() == [[0]]

    run(tmp_path, scenario)
