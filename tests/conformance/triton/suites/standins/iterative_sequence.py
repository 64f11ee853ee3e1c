"""Stands in for the `iterative_sequence` back end: counts down, asking to be run once more."""

import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Answers n-1, n-2, ... 0 to INPUT = n, one a run."""

    def initialize(self, args):
        """Nothing is under way."""
        del args
        self.left = {}

    def execute(self, requests):
        """A request that is not at 0 is released to be scheduled again."""
        for request in requests:
            time.sleep(0.5)
            key = request.correlation_id()
            value = pb.get_input_tensor_by_name(request, "INPUT").as_numpy()
            left = self.left.pop(key, int(value.reshape(-1)[0])) - 1
            sender = request.get_response_sender()
            output = pb.Tensor("OUTPUT", np.full(value.shape, left, np.int32))
            sender.send(pb.InferenceResponse([output]))
            if left > 0:
                self.left[key] = left
                request.set_release_flags(pb.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            else:
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
