"""Model hosts: crash, hang, growth and poison cost their own model only."""

import asyncio
import os
import signal

import numpy as np
import pytest

from tests.server.test_dataplane import infer, plane
from tuili.backends import BackendOptions
from tuili.errors import DeadlineExceeded, InternalError, InvalidArgument, InvalidModel, Unavailable
from tuili.server.execution.host_child import HostSpec
from tuili.server.execution.hosts import Host
from tuili.server.execution.running import InstanceDied
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
max_batch_size: 8
dynamic_batching { }
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
"""
MODEL = """
import os, time, signal
import numpy as np

class Model:
    def __init__(self, parameters):
        self.hoard = []

    def run(self, inputs):
        x = inputs["x"]
        if (x == 13).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (x == 14).any():
            time.sleep(60)
        if (x == 15).any():
            self.hoard.append(np.ones(40 << 20, np.uint8))
        if (x == 16).any():
            raise ValueError("sixteen")
        return {"y": x * 2}
"""


def parameter(key, value):
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'


def add(repository, model="m", *, config=CONFIG, source=MODEL):
    folder = repository / model / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder.parent / "config.pbtxt").write_text(config)


def ask(*values, model="m"):
    data = np.array([values], np.float32)
    return InferRequest(model, [InputTensor("x", "FP32", data.shape, data)])


async def answer(dataplane, *values, model="m"):
    return (await infer(dataplane, ask(*values, model=model))).outputs[0].data.tolist()


def host_of(dataplane, model="m"):
    return dataplane._live[model][""].hosts[0]


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process is what is waited for
            await asyncio.sleep(0.01)


def run(repository, scenario):
    async def started():
        dataplane = plane(repository)
        await dataplane.start()
        assert dataplane.repository.failures() == {}
        try:
            await scenario(dataplane)
        finally:
            assert await dataplane.close(10)

    asyncio.run(started())


def test_a_host_answers_and_its_process_goes_with_the_model(tmp_path):
    add(tmp_path)
    pids = []

    async def scenario(dataplane):
        assert await answer(dataplane, 1, 2, 3) == [[2, 4, 6]]
        big = np.ones((2, 1 << 20), np.float32)
        asked = InferRequest("m", [InputTensor("x", "FP32", big.shape, big)])
        np.testing.assert_array_equal((await infer(dataplane, asked)).outputs[0].data, big * 2)
        pids.append(host_of(dataplane)._child.process.pid)

    run(tmp_path, scenario)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_killed_host_loses_no_request(tmp_path):
    add(tmp_path)

    async def scenario(dataplane):
        asked = [asyncio.ensure_future(answer(dataplane, at)) for at in range(12)]
        await asyncio.sleep(0)
        host_of(dataplane).kill()
        assert await asyncio.gather(*asked) == [[[2 * at]] for at in range(12)]
        await until(lambda: host_of(dataplane).policy.deaths == 1)
        assert await answer(dataplane, 5) == [[10]]
        assert dataplane.server_ready()

    run(tmp_path, scenario)


def test_a_poisonous_request_fails_alone_after_one_retry(tmp_path):
    add(tmp_path)
    add(tmp_path, "other")

    async def scenario(dataplane):
        asked = [asyncio.ensure_future(answer(dataplane, at)) for at in (1, 13, 2)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[0] == [[2]]
        assert found[2] == [[4]]
        assert isinstance(found[1], InstanceDied)
        assert "SIGSEGV" in str(found[1])
        assert host_of(dataplane).policy.deaths == 2
        assert host_of(dataplane, "other").policy.deaths == 0
        assert await answer(dataplane, 1, model="other") == [[2]]

    run(tmp_path, scenario)


def test_a_model_that_is_not_idempotent_is_not_retried(tmp_path):
    add(tmp_path, config=CONFIG + parameter("idempotent", "false"))

    async def scenario(dataplane):
        with pytest.raises(InstanceDied, match="SIGSEGV"):
            await answer(dataplane, 13)
        assert host_of(dataplane).policy.deaths == 1

    run(tmp_path, scenario)


def test_a_hang_ends_at_its_time(tmp_path):
    limits = parameter("host_run_timeout_s", "0.2") + parameter("idempotent", "false")
    add(tmp_path, config=CONFIG + limits)

    async def scenario(dataplane):
        with pytest.raises(InstanceDied, match="SIGKILL"):
            await answer(dataplane, 14)
        assert await answer(dataplane, 1) == [[2]]

    run(tmp_path, scenario)


def test_a_load_that_hangs_fails_at_its_time(tmp_path):
    slow = MODEL.replace("self.hoard = []", "time.sleep(60)")
    add(tmp_path, config=CONFIG + parameter("host_load_timeout_s", "0.2"), source=slow)

    async def scenario():
        dataplane = plane(tmp_path)
        await dataplane.start()
        assert "no answer within 0.2 s" in dataplane.repository.failures()["m"]
        assert await dataplane.close(10)

    asyncio.run(scenario())


def test_readiness_is_false_while_a_host_is_down_and_says_why(tmp_path):
    add(tmp_path)

    async def scenario(dataplane):
        host = host_of(dataplane)
        host.kill()
        await until(lambda: not host.up)
        assert not dataplane.server_ready()
        assert not dataplane.model_ready("m")
        (entry,) = dataplane.repository_index()
        assert entry["state"] == "UNAVAILABLE"
        assert "RESTARTING: its model host died (signal 9, SIGKILL)" in entry["reason"]
        assert dataplane.repository_index(ready_only=True) == []
        assert 'tuili_host_up{host="m-1",instance="0"} 0' in dataplane.metrics_text()
        assert await answer(dataplane, 1) == [[2]]
        assert dataplane.server_ready()
        assert 'tuili_host_deaths{host="m-1",instance="0"} 1' in dataplane.metrics_text()

    run(tmp_path, scenario)


def test_a_host_that_keeps_dying_is_given_up_and_requests_are_refused_at_once(tmp_path):
    add(tmp_path)

    async def scenario(dataplane):
        host = host_of(dataplane)
        for _ in range(host.policy.limits.deaths_in_a_row):
            await until(lambda: host.up)
            host.kill()
            await until(lambda: not host.up)
        with pytest.raises(Unavailable, match="is given up for 30 s"):
            await answer(dataplane, 1)

    run(tmp_path, scenario)


def test_a_host_that_outgrows_its_limit_is_recycled_when_idle(tmp_path):
    add(tmp_path, config=CONFIG + parameter("host_max_rss_mb", "100"))

    async def scenario(dataplane):
        host = host_of(dataplane)
        for _ in range(3):
            assert await answer(dataplane, 15) == [[30]]
        host._watch()
        await until(lambda: host.policy.deaths == 1)
        assert await answer(dataplane, 1) == [[2]]
        assert host.rss_bytes() < 100 << 20

    run(tmp_path, scenario)


def test_an_exception_of_the_model_is_told_and_costs_nothing_else(tmp_path):
    add(tmp_path)

    async def scenario(dataplane):
        with pytest.raises(InternalError, match="ValueError: sixteen"):
            await answer(dataplane, 16)
        assert host_of(dataplane).policy.deaths == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_what_is_no_exception_costs_no_process_either(tmp_path, error):
    add(tmp_path, source=MODEL.replace('ValueError("sixteen")', error))

    async def scenario(dataplane):
        for _ in range(2):
            with pytest.raises(InternalError, match=error.partition("(")[0]):
                await answer(dataplane, 16)
        assert await answer(dataplane, 1) == [[2]]
        assert host_of(dataplane).policy.deaths == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import nonexistent", "fails on import: ModuleNotFoundError"),
        ("x = 1", "defines neither class Model nor class TritonPythonModel"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("raise KeyboardInterrupt('odd')", "KeyboardInterrupt: odd"),
        ("import os; os._exit(3)", "its model host died while loading: exit status 3"),
        ("class Model:\n    def __init__(self, p): raise KeyError('p')", "KeyError: 'p'"),
    ],
)
def test_models_that_do_not_load(tmp_path, source, text):
    path = tmp_path / "model.py"
    path.write_text(source)
    from tuili.tensors import DType, TensorSpec

    spec = (TensorSpec("x", DType.F32, (1,)),)
    options = BackendOptions(declared_inputs=spec, declared_outputs=spec)
    host = Host(HostSpec("m-1", "python", path, options))
    with pytest.raises(InvalidModel, match=text):
        host.start()
    host.close()


TRITON = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        out = pb_utils.get_output_config_by_name(config, "y")
        self.dtype = pb_utils.triton_string_to_numpy(out["data_type"])
        assert config["max_batch_size"] == 8 and out["dims"] == [-1]

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if (x < 0).any():
                error = pb_utils.TritonError("negative")
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            y = pb_utils.Tensor("y", (x + 1).astype(self.dtype))
            responses.append(pb_utils.InferenceResponse(output_tensors=[y]))
        return responses
"""


def test_models_for_tritons_python_back_end_run_unchanged(tmp_path):
    add(tmp_path, source=TRITON)

    async def scenario(dataplane):
        assert await answer(dataplane, 1, 2) == [[2, 3]]
        with pytest.raises(InternalError, match="negative"):
            await answer(dataplane, -1)

    run(tmp_path, scenario)


def test_text_crosses_the_shared_memory(tmp_path):
    config = CONFIG.replace("TYPE_FP32", "TYPE_STRING")
    source = (
        "class Model:\n    def __init__(self, p): pass\n    def run(self, i): return {'y': i['x']}"
    )
    add(tmp_path, config=config, source=source)

    async def scenario(dataplane):
        data = np.array([[b"a", b"", "é".encode()]], dtype=object)
        asked = InferRequest("m", [InputTensor("x", "BYTES", data.shape, data)])
        assert (await infer(dataplane, asked)).outputs[0].data.tolist() == data.tolist()

    run(tmp_path, scenario)


def test_isolation_of_our_own_code_on_request(tmp_path):
    config = 'backend: "identity"' + CONFIG + parameter("isolation", "process")
    add(tmp_path, config=config)

    async def scenario(dataplane):
        assert await answer(dataplane, 4) == [[4]]
        os.kill(host_of(dataplane)._child.process.pid, signal.SIGKILL)
        assert await answer(dataplane, 4) == [[4]]

    run(tmp_path, scenario)


def test_a_bad_isolation_is_refused(tmp_path):
    add(tmp_path, config=CONFIG + parameter("isolation", "prison"))

    async def scenario():
        dataplane = plane(tmp_path)
        await dataplane.start()
        told = dataplane.repository.failures()["m"]
        assert "config.pbtxt: line 6, column 31: parameter 'isolation' must be auto" in told

    asyncio.run(scenario())


def test_invalid_requests_never_reach_the_host(tmp_path):
    add(tmp_path)

    async def scenario(dataplane):
        data = np.zeros((1, 1), np.int32)
        asked = InferRequest("m", [InputTensor("x", "INT32", (1, 1), data)])
        with pytest.raises(InvalidArgument, match="data-type is 'INT32'"):
            await infer(dataplane, asked)

    run(tmp_path, scenario)


WAITS = """
import os, time
class Model:
    def __init__(self, parameters):
        self.folder = os.path.dirname(__file__)

    def run(self, inputs):
        if (inputs["x"] == 1).any():
            time.sleep(0.1)
        while (inputs["x"] == 2).any() and not os.path.exists(f"{self.folder}/go"):
            time.sleep(0.001)
        return {"y": inputs["x"]}
"""
LIMITED = CONFIG.replace(
    "dynamic_batching { }",
    """dynamic_batching { priority_levels: 2 default_priority_level: 2
                          default_queue_policy { default_timeout_microseconds: 20000 } }""",
)


def test_a_time_in_the_queue_ends_behind_a_run_too(tmp_path):
    """A batch that was sent on before its turn could neither expire nor be overtaken."""
    add(tmp_path, config=LIMITED, source=WAITS)

    async def scenario(dataplane):
        assert await answer(dataplane, 1) == [[1]]  # its runs are known to be long
        running = asyncio.ensure_future(answer(dataplane, 2))
        await until(lambda: dataplane._live["m"][""]._dispatcher._running)
        with pytest.raises(DeadlineExceeded, match="Request timeout expired"):
            await answer(dataplane, 3)
        assert not running.done()
        (tmp_path / "m" / "1" / "go").touch()
        assert await running == [[2]]

    run(tmp_path, scenario)
