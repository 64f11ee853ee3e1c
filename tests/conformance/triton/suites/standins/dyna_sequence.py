"""Stands in for the `dyna_sequence` back end: a sum for each correlation id, kept by the model."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb


def read(request, name):
    """A tensor of a request, flat."""
    return pb.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)


class TritonPythonModel:
    """OUTPUT is the sequence's sum so far; with the last request the id is added."""

    def initialize(self, args):
        """Read the delay."""
        config = json.loads(args["model_config"])
        delay = config.get("parameters", {}).get("execute_delay_ms", {"string_value": "0"})
        self.delay_s = float(delay["string_value"]) / 1000
        self.sums = {}

    def execute(self, requests):
        """The id is a number, or text that holds one."""
        time.sleep(self.delay_s)
        answers = []
        for request in requests:
            ident = int(read(request, "CORRID")[0])
            before = 0 if read(request, "START")[0] else self.sums[ident]
            total = before + int(read(request, "INPUT").sum())
            if read(request, "END")[0]:
                total += ident
            self.sums[ident] = total
            shape = pb.get_input_tensor_by_name(request, "INPUT").as_numpy().shape
            output = np.full(shape, total, np.int32)
            answers.append(pb.InferenceResponse([pb.Tensor("OUTPUT", output)]))
        return answers
