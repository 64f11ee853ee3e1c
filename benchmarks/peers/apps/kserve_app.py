"""KServe's Python server, access logs off; identity or the digits MLP."""

import logging
import os

import kserve
from kserve import InferOutput, InferResponse
from kserve.protocol.infer_type import RequestedOutput


class Model(kserve.Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True
        self.session = None
        if name == "mlp":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(os.environ["MLP"], options)

    def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0].as_numpy()
        name, y = "OUTPUT0", x
        if self.session is not None:
            name, y = "probabilities", self.session.run(["probabilities"], {"X": x})[0]
        output = InferOutput(name, list(y.shape), "FP32")
        binary = payload.from_grpc or payload.use_binary_outputs
        output.set_data_from_numpy(y, binary_data=True)
        wanted = payload.request_outputs or [RequestedOutput(name, {"binary_data": bool(binary)})]
        return InferResponse(
            payload.id, self.name, [output], requested_outputs=wanted,
            use_binary_outputs=True, from_grpc=payload.from_grpc,
        )  # fmt: skip


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # no line per request
    kserve.ModelServer(
        http_port=int(os.environ["PORT"]), grpc_port=int(os.environ["GRPC_PORT"]), workers=1,
        access_log_format=None, enable_docs_url=False,
    ).start([Model("small"), Model("mlp")])  # fmt: skip
