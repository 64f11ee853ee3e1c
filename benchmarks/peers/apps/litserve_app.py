"""LitServe: JSON in and out, its documented way; identity or the digits MLP."""

import os

import litserve
import numpy as np


class Model(litserve.LitAPI):
    def setup(self, device):
        self.session = None
        if os.environ["CASE"] == "mlp":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(os.environ["MLP"], options)

    def decode_request(self, request):
        return np.array(request["input"], np.float32)

    def predict(self, x):
        return x if self.session is None else self.session.run(["probabilities"], {"X": x})[0]

    def encode_response(self, output):
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu")
    server.run(
        host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False,
        generate_client_file=False,
    )  # fmt: skip
