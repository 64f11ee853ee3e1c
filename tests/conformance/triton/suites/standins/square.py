"""Stands in for the `square` back end: the number n is answered n times."""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Delays and the number of failed and of empty answers come from the configuration."""

    def initialize(self, args):
        """Read the parameters."""
        given = json.loads(args["model_config"]).get("parameters", {})

        def number(key):
            return int(given.get(key, {"string_value": "0"})["string_value"])

        self.infer_s = number("CUSTOM_INFER_DELAY_NS") / 1e9
        self.output_s = number("CUSTOM_OUTPUT_DELAY_NS") / 1e9
        self.fail, self.empty = number("CUSTOM_FAIL_COUNT"), number("CUSTOM_EMPTY_COUNT")

    def execute(self, requests):
        """Answers come from a thread of their own."""
        for request in requests:
            value = pb.get_input_tensor_by_name(request, "IN").as_numpy().copy()
            told = (request.get_response_sender(), value)
            threading.Thread(target=self.answer, args=told).start()

    def answer(self, sender, value):
        """All answers to one request."""
        for _ in range(int(value.reshape(-1)[0])):
            time.sleep(self.infer_s + self.output_s)
            if self.fail:
                self.fail -= 1
                sender.send(pb.InferenceResponse(error=pb.TritonError("on purpose")))
            elif self.empty:
                self.empty -= 1
                sender.send(pb.InferenceResponse([]))
            else:
                sender.send(pb.InferenceResponse([pb.Tensor("OUT", value.astype(np.int32))]))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
