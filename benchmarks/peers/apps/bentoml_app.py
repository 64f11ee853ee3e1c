"""BentoML: JSON in and out, its documented way; identity or the digits MLP."""

import os

import bentoml
import numpy as np

SESSION = None
if os.environ["CASE"] == "mlp":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    SESSION = onnxruntime.InferenceSession(os.environ["MLP"], options)


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 60})
class Model:
    @bentoml.api
    def predict(self, input: np.ndarray) -> np.ndarray:  # noqa: A002 - BentoML's field name
        x = np.asarray(input, np.float32)
        return x if SESSION is None else SESSION.run(["probabilities"], {"X": x})[0]
