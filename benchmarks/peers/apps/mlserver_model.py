"""MLServer: identity or the digits MLP."""

import os

import numpy as np
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Model(MLModel):
    async def load(self):
        self.session = None
        if self.name == "mlp":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(os.environ["MLP"], options)
        return True

    async def predict(self, payload):
        item = payload.inputs[0]
        x = np.array(item.data.root, np.float32).reshape(item.shape)
        name, y = "OUTPUT0", x
        if self.session is not None:
            name, y = "probabilities", self.session.run(["probabilities"], {"X": x})[0]
        output = ResponseOutput(
            name=name, shape=list(y.shape), datatype="FP32", data=y.reshape(-1).tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])
