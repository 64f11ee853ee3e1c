"""Stands in for the `sequence` back end: a sum for each row of the batch, kept by the model."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb


def read(request, name):
    """A tensor of a request, flat."""
    return pb.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)


class TritonPythonModel:
    """OUTPUT is the row's sum so far, in the shape of INPUT."""

    def initialize(self, args):
        """Read the delay."""
        config = json.loads(args["model_config"])
        delay = config.get("parameters", {}).get("execute_delay_ms", {"string_value": "0"})
        self.delay_s = float(delay["string_value"]) / 1000
        self.sums = {}

    def execute(self, requests):
        """The place of a request in the list is its row."""
        time.sleep(self.delay_s)
        answers = []
        for row, request in enumerate(requests):
            if read(request, "READY")[0]:
                before = 0 if read(request, "START")[0] else self.sums[row]
                self.sums[row] = before + int(read(request, "INPUT").sum())
            shape = pb.get_input_tensor_by_name(request, "INPUT").as_numpy().shape
            output = np.full(shape, self.sums.get(row, 0), np.int32)
            answers.append(pb.InferenceResponse([pb.Tensor("OUTPUT", output)]))
        return answers
