"""What does not fit into one message between server and model host: it arrives all the same."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import infer
from tests.server.test_hosts import CONFIG, add, host_of, run
from tuili.errors import InternalError
from tuili.server.protocol.messages import InferRequest, InputTensor

ECHO = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        given = json.loads(request.parameters())
        if "error" in given:
            text = given["error"] * 300_000 if given["error"] == "long" else "half \\udc80"
            return pb_utils.InferenceResponse([], pb_utils.TritonError(text))
        if "half" in given:
            return pb_utils.InferenceResponse([], parameters={"text": "\\udc80"})
        if "raise" in given:
            raise FileNotFoundError(2, "no file", "caf\\udce9")
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("y", x * 2)], parameters={"text": given["text"]}
        )
"""
CALLER = """
import json
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x")
        call = pb_utils.InferenceRequest(
            model_name="m", requested_output_names=["y"], inputs=[x],
            parameters=json.loads(request.parameters()),
        )
        found = call.exec()
        return pb_utils.InferenceResponse(
            found.output_tensors(), parameters=json.loads(found.parameters())
        )
"""
STREAMS = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            text = json.loads(request.parameters())["text"]
            for part in range(3):
                y = pb_utils.Tensor("y", np.full((1, 1), part, np.float32))
                sender.send(pb_utils.InferenceResponse([y], parameters={"text": text}))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
LONG = "long" * 100_000


def ask(value=1.0, model="m", **parameters):
    data = np.full((1, 2), value, np.float32)
    inputs = [InputTensor("x", "FP32", data.shape, data)]
    return InferRequest(model, inputs, parameters=parameters)


def test_long_parameters_go_both_ways_and_so_do_those_of_many_requests(tmp_path):
    add(tmp_path, source=ECHO)

    async def scenario(dataplane):
        asked = [ask(float(at), text=f"{at}{LONG}") for at in range(20)]
        for at, found in enumerate(await asyncio.gather(*(infer(dataplane, a) for a in asked))):
            assert found.parameters["text"] == f"{at}{LONG}"
            assert found.outputs[0].data.tolist() == [[2.0 * at] * 2]
        assert (await infer(dataplane, ask(text="short"))).parameters["text"] == "short"
        assert host_of(dataplane).policy.deaths == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"error": "long"}, r"longlong.*\.\.\.$"),
        ({"error": "half"}, r"half \\udc80"),
        ({"raise": True}, r"caf\\udce9"),
        ({"half": True}, "surrogates not allowed"),
    ],
)
def test_errors_that_cannot_be_sent_as_they_are_cost_no_host(tmp_path, parameters, text):
    add(tmp_path, source=ECHO)

    async def scenario(dataplane):
        with pytest.raises(InternalError, match=text):
            await infer(dataplane, ask(**parameters))
        assert host_of(dataplane).policy.deaths == 0

    run(tmp_path, scenario)


def test_long_parameters_of_calls_between_models(tmp_path):
    add(tmp_path, source=ECHO)
    add(tmp_path, "caller", source=CALLER)

    async def scenario(dataplane):
        found = await infer(dataplane, ask(model="caller", text=LONG))
        assert found.parameters["text"] == LONG
        assert found.outputs[0].data.tolist() == [[2.0, 2.0]]

    run(tmp_path, scenario)


def test_long_parameters_of_many_answers(tmp_path):
    policy = "model_transaction_policy { decoupled: true }\n"
    add(tmp_path, source=STREAMS, config=CONFIG + policy)

    async def scenario(dataplane):
        found = []
        over = asyncio.Event()

        def answered(answer, final):
            if answer is not None:
                found.append(answer)
            if final:
                over.set()

        dataplane.submit_stream(ask(text=LONG), answered)
        await over.wait()
        assert [each.outputs[0].data.item() for each in found] == [0.0, 1.0, 2.0]
        assert [each.parameters["text"] for each in found] == [LONG] * 3

    run(tmp_path, scenario)
