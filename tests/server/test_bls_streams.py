"""Triton Python models that call models which answer any number of times."""

import pytest

from tests.server.test_dataplane import infer
from tests.server.test_hosts import add
from tests.server.test_model_calls import CONFIG, HEAD, ask, run, value

COUNTS = (
    HEAD
    + """
import time

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender, n = request.get_response_sender(), int(value_of(request))
            how = request.request_id()
            for at in range(n):
                while at == 2 and how == "heeds" and not request.is_cancelled():
                    time.sleep(0.001)
                if request.is_cancelled() and how == "heeds":
                    error = pb.TritonError("enough", pb.TritonError.CANCELLED)
                    sender.send(pb.InferenceResponse(error=error), flags=1)
                    break
                last = how == "with" and at == n - 1
                sender.send(pb.InferenceResponse([one(request, at)]), flags=int(last))
            else:
                if how != "with":
                    sender.send(flags=1)
"""
)
READS = (
    HEAD
    + """
class TritonPythonModel:
    async def execute(self, requests):
        (request,) = requests
        x = pb.get_input_tensor_by_name(request, "x")
        asked = pb.InferenceRequest(
            model_name="counts", request_id=request.request_id(), inputs=[x],
            requested_output_names=["y"],
        )
        if value_of(request) > 3:
            answers = await asked.async_exec(decoupled=True)
        else:
            answers = asked.exec(decoupled=True)
        seen = []
        for answer in answers:
            if answer.has_error():
                seen.append(f"error {answer.error().code()}")
            elif not answer.output_tensors():
                seen.append("empty")
            else:
                seen.append(str(int(pb.get_output_tensor_by_name(answer, "y").as_numpy()[0, 0])))
            if len(seen) == 2 and request.request_id() in ("heeds", "goes on"):
                answers.cancel()
        answers.cancel()  # without effect: it is over
        again = len(list(answers))
        return [pb.InferenceResponse([one(request, again)], parameters={"seen": " ".join(seen)})]
"""
)
MANY = CONFIG.replace("dynamic_batching { }", "model_transaction_policy { decoupled: true }")


@pytest.mark.parametrize(
    ("how", "n", "seen"),
    [
        ("with", 2, "0 1"),
        ("after", 2, "0 1 empty"),
        ("after", 0, "empty"),
        ("after", 4, "0 1 2 3 empty"),
        ("heeds", 4, "0 1 error 7"),
        ("goes on", 4, "0 1 2 3 empty"),
    ],
)
def test_a_caller_gets_all_that_the_model_sends_and_once_more(tmp_path, how, n, seen):
    add(tmp_path, "counts", config=MANY, source=COUNTS)
    add(tmp_path, "reads", config=CONFIG, source=READS)

    async def scenario(dataplane):
        answer = await infer(dataplane, ask("reads", float(n), id=how))
        assert answer.parameters["seen"] == seen
        assert value(answer) == len(seen.replace("error 7", "error").split())

    run(tmp_path, scenario)


MANY_AT_ONCE = (
    HEAD
    + """
class TritonPythonModel:
    async def execute(self, requests):
        (request,) = requests
        asks = [
            pb.InferenceRequest(
                model_name="gathers", inputs=[one(request, 1.0, "x")], requested_output_names=["y"]
            )
            for _ in range(40)
        ]
        iterators = await asyncio.gather(*(each.async_exec(decoupled=True) for each in asks))
        got = sum(len(list(each)) for each in iterators)
        return [pb.InferenceResponse([one(request, got)])]
"""
)
GATHERS = (
    HEAD
    + """
class TritonPythonModel:
    def initialize(self, args):
        self.waiting = []

    def execute(self, requests):
        self.waiting += [(each, each.get_response_sender()) for each in requests]
        if len(self.waiting) == 40:
            for each, sender in self.waiting:
                sender.send(pb.InferenceResponse([one(each, 1.0)]), flags=1)
"""
)


def test_any_number_of_calls_of_coroutines_are_under_way_together(tmp_path):
    add(tmp_path, "gathers", config=MANY, source=GATHERS)
    add(tmp_path, "asks", config=CONFIG, source=MANY_AT_ONCE)

    async def scenario(dataplane):
        assert value(await infer(dataplane, ask("asks"))) == 40.0

    run(tmp_path, scenario)
