"""Models that answer any number of times."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, run
from tuili.errors import InternalError, TuiliError, Unsupported
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
input { name: "n" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }
model_transaction_policy { decoupled: true }
"""
PLAIN = """
import numpy as np

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        for at in range(int(inputs["n"][0])):
            if at == 13:
                raise ValueError("thirteen")
            yield {"y": np.array([at], np.int32)}
"""
TRITON = """
import threading
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,)).start()
        return None

    def answer(self, request):
        sender = request.get_response_sender()
        n = int(pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0])
        for at in range(n):
            y = pb_utils.Tensor("y", np.array([at], np.int32))
            sender.send(pb_utils.InferenceResponse(output_tensors=[y]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
IN_PROCESS = 'parameters { key: "isolation" value: { string_value: "none" } }'


@pytest.fixture(
    params=[(PLAIN, ""), (TRITON, ""), (PLAIN, IN_PROCESS)], ids=["plain", "triton", "inside"]
)
def repository(tmp_path, request):
    source, extra = request.param
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(source)
    return tmp_path


def ask(n):
    return InferRequest("m", [InputTensor("n", "INT32", (1,), np.array([n], np.int32))], id="7")


async def stream(dataplane, n, *, stop_after=None):
    """The values, and whatever came with the final flag."""
    found, ended = [], asyncio.get_running_loop().create_future()
    ticket = None

    def reply(answer, final):
        assert not ended.done()
        if final:
            ended.set_result(answer)
            return
        assert answer.id == "7"
        found.append(answer.outputs[0].data.item())
        if len(found) == stop_after:
            ticket.cancel()
            ended.set_result("cancelled")

    ticket = dataplane.submit_stream(ask(n), reply)
    return found, await asyncio.wait_for(ended, 10)


@pytest.mark.parametrize("n", [0, 1, 10])
def test_answers_arrive_in_order_and_end(repository, n):
    async def scenario(dataplane):
        assert await stream(dataplane, n) == (list(range(n)), None)
        assert dataplane.is_decoupled("m")
        stats = dataplane.model_statistics("m")["model_stats"][0]["inference_stats"]
        assert stats["success"]["count"] == 1

    run(repository, scenario)


def test_streams_side_by_side(repository):
    async def scenario(dataplane):
        found = await asyncio.gather(*(stream(dataplane, n) for n in range(6)))
        assert [values for values, _ in found] == [list(range(n)) for n in range(6)]

    run(repository, scenario)


def test_a_cancelled_stream_stops_and_the_next_one_works(repository):
    async def scenario(dataplane):
        assert (await stream(dataplane, 12, stop_after=3))[0] == [0, 1, 2]
        assert await stream(dataplane, 2) == ([0, 1], None)

    run(repository, scenario)


def test_an_error_in_the_middle_ends_the_stream(tmp_path):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(PLAIN)

    async def scenario(dataplane):
        values, last = await stream(dataplane, 20)
        assert values == list(range(13))
        assert isinstance(last, InternalError)
        assert "thirteen" in str(last)

    run(tmp_path, scenario)


def test_one_answer_requests_are_refused(repository):
    async def scenario(dataplane):
        with pytest.raises(Unsupported, match="decoupled transaction policy"):
            await infer(dataplane, ask(1))

    run(repository, scenario)


def test_models_that_answer_once_end_with_their_answer(tmp_path):
    add(tmp_path, "m", 1)

    async def scenario(dataplane):
        ended = asyncio.get_running_loop().create_future()
        data = np.ones((1, 2), np.float32)
        asked = InferRequest("m", [InputTensor("x", "FP32", (1, 2), data)])
        dataplane.submit_stream(asked, lambda answer, final: ended.set_result((answer, final)))
        answer, final = await ended
        assert final
        assert not isinstance(answer, TuiliError)

    run(tmp_path, scenario)


def test_a_killed_host_ends_a_stream_that_had_begun(tmp_path):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(PLAIN.replace("at == 13", "False"))

    async def scenario(dataplane):
        killed = []
        ended = asyncio.get_running_loop().create_future()

        def reply(answer, final):
            if final:
                ended.set_result(answer)
            elif not killed:
                killed.append(True)
                dataplane._live["m"][""].hosts[0].kill()

        dataplane.submit_stream(ask(1_000_000), reply)
        assert "SIGKILL" in str(await asyncio.wait_for(ended, 10))

    run(tmp_path, scenario)
