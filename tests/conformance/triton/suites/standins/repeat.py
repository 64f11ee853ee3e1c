"""Stands in for the `repeat` back end: each element of IN is an answer, DELAY ms after the last."""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb


def read(request, name):
    """A tensor of a request, flat."""
    return pb.get_input_tensor_by_name(request, name).as_numpy().reshape(-1).copy()


class TritonPythonModel:
    """The request is released WAIT ms after its answers have begun."""

    def execute(self, requests):
        """Answers come from a thread of their own."""
        for request in requests:
            sender, values, delays = (
                request.get_response_sender(),
                read(request, "IN"),
                read(request, "DELAY"),
            )
            if len(values) != len(delays):
                text = (
                    f"expected IN and DELAY shape to match, got [{len(values)}] and [{len(delays)}]"
                )
                error = pb.InferenceResponse(error=pb.TritonError(text))
                sender.send(error, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                continue
            threading.Thread(target=self.answer, args=(sender, values, delays)).start()
            time.sleep(int(read(request, "WAIT")[0]) / 1000)

    def answer(self, sender, values, delays):
        """All answers to one request."""
        for at, (value, delay) in enumerate(zip(values, delays, strict=True)):
            time.sleep(int(delay) / 1000)
            out = pb.Tensor("OUT", np.array([value], np.int32))
            index = pb.Tensor("IDX", np.array([at], np.uint32))
            sender.send(pb.InferenceResponse([out, index]))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
