"""Triton Python models that answer once, by the sender of their request."""

import pytest

from tests.server.test_dataplane import add, infer, run
from tuili.errors import InternalError
from tuili.server.protocol.messages import InferRequest

CONFIG = 'backend: "python"\noutput { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }\n'
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

def answer(value):
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.array([value], np.int32))])

class TritonPythonModel:
    def execute(self, requests):
        sender = requests[0].get_response_sender()
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
"""
FINAL = "\n        sender.send(flags=final)"


def served(tmp_path, steps):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(f"{MODEL}        {steps}\n")

    async def scenario(dataplane):
        return (await infer(dataplane, InferRequest("m", []))).outputs[0].data.item()

    return run(tmp_path, scenario)


@pytest.mark.parametrize(
    "steps",
    [
        "sender.send(answer(1), final)",
        "sender.send(answer(1))\n        sender.send(answer(2))" + FINAL,
        "sender.send(answer(1))\n        return [answer(2)]",
        "return [answer(1)]",
    ],
    ids=["one", "two", "one, and one returned", "one returned"],
)
def test_the_first_answer_counts(tmp_path, steps):
    assert served(tmp_path, steps) == 1


def test_an_end_without_an_answer_is_an_error(tmp_path):
    with pytest.raises(InternalError, match="cannot send complete final before"):
        served(tmp_path, FINAL.strip())


@pytest.mark.parametrize("flag", ["", "self.kept = requests[0].request_id()"])
def test_a_sender_that_is_let_go_ends_its_request(tmp_path, flag):
    assert served(tmp_path, f"sender.send(answer(1))\n        {flag}") == 1


def test_a_request_that_is_let_go_without_an_answer_is_an_error(tmp_path):
    with pytest.raises(InternalError, match="let go of the request without an answer"):
        served(tmp_path, "pass")
