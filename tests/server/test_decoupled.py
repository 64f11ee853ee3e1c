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


def ask(n, shape=(1,)):
    return InferRequest(
        "m", [InputTensor("n", "INT32", shape, np.full(shape, n, np.int32))], id="7"
    )


async def stream(dataplane, n, *, stop_after=None, shape=(1,)):
    """The values, and whatever came with the final flag."""
    found, ended = [], asyncio.get_running_loop().create_future()
    ticket = None

    def reply(answer, final):
        assert not ended.done()
        if final:
            ended.set_result(answer)
            return
        if isinstance(answer, TuiliError):
            found.append(str(answer))
        else:
            assert answer.id == "7"
            found.append(answer.outputs[0].data.item())
        if len(found) == stop_after:
            ticket.cancel()
            ended.set_result("cancelled")

    ticket = dataplane.submit_stream(ask(n, shape), reply)
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


TOGETHER = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.senders = []

    def execute(self, requests):
        for request in requests:
            self.senders.append(request.get_response_sender())
        if len(self.senders) == 3:
            for at in range(2):
                for sender in self.senders:
                    y = pb_utils.Tensor("y", np.array([at], np.int32))
                    sender.send(pb_utils.InferenceResponse(output_tensors=[y]))
            for sender in self.senders:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_a_model_may_take_requests_while_it_has_not_answered_others(tmp_path, extra):
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(TOGETHER)

    async def scenario(dataplane):
        found = await asyncio.gather(*(stream(dataplane, 1) for _ in range(3)))
        assert found == [([0, 1], None)] * 3

    run(tmp_path, scenario)


AT_ONCE = """
import pathlib
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        sender = requests[0].get_response_sender()
        y = pb_utils.Tensor("y", np.array([0], np.int32))
        sender.send(pb_utils.InferenceResponse(output_tensors=[y]))
        seen = pathlib.Path(__file__).with_name("seen")
        while not seen.exists():
            time.sleep(0.001)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_an_answer_leaves_while_the_model_still_works_on_the_next(tmp_path, extra):
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(AT_ONCE)

    async def scenario(dataplane):
        ended = asyncio.get_running_loop().create_future()

        def reply(answer, final):
            (tmp_path / "m" / "1" / "seen").touch()
            if final:
                ended.set_result(answer)

        dataplane.submit_stream(ask(1), reply)
        assert await asyncio.wait_for(ended, 10) is None

    run(tmp_path, scenario)


COROUTINE = """
import asyncio
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.waiting = 0

    async def execute(self, requests):
        (request,) = requests
        n = int(pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0])
        self.waiting += 1
        while self.waiting < 2:
            await asyncio.sleep(0.001)
        if n == 13:
            raise ValueError("thirteen")
        sender = request.get_response_sender()
        y = pb_utils.Tensor("y", np.array([n], np.int32))
        sender.send(pb_utils.InferenceResponse(output_tensors=[y]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def test_coroutines_of_a_model_answer_side_by_side(tmp_path):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(COROUTINE)

    async def scenario(dataplane):
        good, bad = await asyncio.gather(stream(dataplane, 5), stream(dataplane, 13))
        assert good == ([5], None)
        assert "thirteen" in str(bad[1])

    run(tmp_path, scenario)


NOW_AND_THEN = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "n").as_numpy()
            sender = request.get_response_sender()
            for at in range(value.item()):
                if at == 1:
                    answer = pb_utils.InferenceResponse(error=pb_utils.TritonError("not this one"))
                else:
                    tensor = pb_utils.Tensor("y", np.full(value.shape, at, np.int32))
                    answer = pb_utils.InferenceResponse([tensor])
                sender.send(answer)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_an_error_may_be_one_of_many_answers(tmp_path, extra):
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(NOW_AND_THEN)

    async def scenario(dataplane):
        assert await stream(dataplane, 4) == ([0, "not this one", 2, 3], None)
        stats = dataplane.model_statistics("m")["model_stats"][0]["response_stats"]
        assert [each["success"]["count"] for each in stats.values()] == [1, 0, 1, 1]
        assert [each["fail"]["count"] for each in stats.values()] == [0, 1, 0, 0]
        assert all(each["compute_infer"]["ns"] > 0 for each in stats.values())

    run(tmp_path, scenario)


def test_every_request_of_a_model_that_joins_them_gets_its_answers(tmp_path):
    batching = "dynamic_batching { max_queue_delay_microseconds: 50000 }"
    config = CONFIG + "max_batch_size: 8\n" + batching
    add(tmp_path, "m", 1, config=config)
    (tmp_path / "m" / "1" / "model.py").write_text(NOW_AND_THEN)

    async def scenario(dataplane):
        found = await asyncio.gather(*(stream(dataplane, 3, shape=(1, 1)) for _ in range(4)))
        assert found == [([0, "not this one", 2], None)] * 4

    run(tmp_path, scenario)


COUNTING = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "n").as_numpy()
            if value.item() == 13:
                raise ValueError("thirteen")
            tensor = pb_utils.Tensor("y", np.full(value.shape, len(requests), np.int32))
            answer = pb_utils.InferenceResponse([tensor])
            sender = request.get_response_sender()
            if value.item():
                sender.send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                sender.send(answer)
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_the_last_answer_may_say_that_it_is_the_last(tmp_path, extra):
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(COUNTING)

    async def scenario(dataplane):
        values, last = await stream(dataplane, 1)
        assert (values, last.outputs[0].data.item()) == ([], 1)
        assert await stream(dataplane, 0) == ([1], None)
        stats = dataplane.model_statistics("m")["model_stats"][0]["inference_stats"]
        assert stats["success"]["count"] == 2

    run(tmp_path, scenario)


def counted(dataplane):
    """The statistics of the only model."""
    return dataplane.model_statistics("m")["model_stats"][0]


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_a_batch_is_one_execute_and_fails_as_one(tmp_path, extra):
    batching = (
        "dynamic_batching { preferred_batch_size: [3] max_queue_delay_microseconds: 5000000 }"
    )
    add(tmp_path, "m", 1, config=CONFIG + extra + "max_batch_size: 8\n" + batching)
    (tmp_path / "m" / "1" / "model.py").write_text(COUNTING)

    async def scenario(dataplane):
        good = await asyncio.gather(*(stream(dataplane, n, shape=(1, 1)) for n in (0, 1, 0)))
        assert [values for values, _ in good] == [[3], [], [3]]
        # What ran is counted when `execute` has ended, a moment after its last answer.
        async with asyncio.timeout(20):
            while not counted(dataplane)["execution_count"]:  # noqa: ASYNC110 - it is no event
                await asyncio.sleep(0)
        stats = counted(dataplane)
        assert (stats["execution_count"], stats["inference_count"]) == (1, 3)
        bad = await asyncio.gather(*(stream(dataplane, n, shape=(1, 1)) for n in (0, 13, 0)))
        assert ["thirteen" in str(last) for _, last in bad] == [False, True, True]

    run(tmp_path, scenario)


RAISING = """
class TritonPythonModel:
    def execute(self, requests):
        raise ValueError("thirteen")
"""


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_a_model_that_raises_before_it_answers_fails_that_request(tmp_path, extra):
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(RAISING)

    async def scenario(dataplane):
        for _ in range(3):
            values, last = await stream(dataplane, 1)
            assert values == []
            assert "thirteen" in str(last)

    run(tmp_path, scenario)


NEVER_ENDING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        self.kept = [request.get_response_sender() for request in requests]
"""


@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_a_stream_that_is_not_wanted_any_more_does_not_hold_its_model(tmp_path, extra):
    add(tmp_path, "m", 1, config=CONFIG + extra)
    (tmp_path / "m" / "1" / "model.py").write_text(NEVER_ENDING)

    async def scenario(dataplane):
        tickets = [dataplane.submit_stream(ask(1), lambda *_: None) for _ in range(3)]
        await asyncio.sleep(0.1)  # most of them are with the model by now; any may be anywhere
        for ticket in tickets:
            ticket.cancel()
        assert await dataplane._live["m"][""].drain(5)

    run(tmp_path, scenario)


def test_all_streams_of_a_killed_host_end(tmp_path):
    add(
        tmp_path,
        "m",
        1,
        config=CONFIG + 'parameters { key: "idempotent" value: { string_value: "false" } }',
    )
    (tmp_path / "m" / "1" / "model.py").write_text(TOGETHER)

    async def scenario(dataplane):
        both = [asyncio.ensure_future(stream(dataplane, 1)) for _ in range(2)]
        await asyncio.sleep(0.1)
        dataplane._live["m"][""].hosts[0].kill()
        for _, last in await asyncio.gather(*both):
            assert "SIGKILL" in str(last)

    run(tmp_path, scenario)


def test_a_stream_faster_than_its_client_leaves_time_for_others(tmp_path):
    """The loop read on as long as the host had something to say."""
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(PLAIN.replace("at == 13", "False"))

    async def scenario(dataplane):
        count, found, ended = 1000, [], asyncio.Event()

        def slow(answer, final):
            found.append(sum(range(20_000)))  # takes longer than the model does
            if final:
                ended.set()

        dataplane.submit_stream(ask(count), slow)
        async with asyncio.timeout(60):
            while not found:  # noqa: ASYNC110 - turns of the loop are what is tested
                await asyncio.sleep(0)
            assert len(found) < count / 2
            await ended.wait()
        assert len(found) == count + 1

    run(tmp_path, scenario)


LETS_GO = TRITON.replace(
    "        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)\n", ""
).replace("        n = int", "        assert request.request_id() == '7'\n        n = int")


@pytest.mark.parametrize(
    "source",
    [
        LETS_GO,
        LETS_GO.replace(
            "            threading.Thread(target=self.answer, args=(request,)).start()",
            "            self.answer(request)",
        ),
    ],
    ids=["in a thread", "at once"],
)
def test_a_sender_that_is_let_go_ends_its_stream(tmp_path, source):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(source)

    async def scenario(dataplane):
        assert await stream(dataplane, 3) == ([0, 1, 2], None)
        assert "without an answer" in str((await stream(dataplane, 0))[1])
        assert await stream(dataplane, 1) == ([0], None)

    run(tmp_path, scenario)
