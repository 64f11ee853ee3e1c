"""mosec: raw bytes in and out, as it is meant to be used; identity or the digits MLP."""

import os

import numpy as np
from mosec import Server, Worker


class Identity(Worker):
    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        return data


class Mlp(Identity):
    def __init__(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MLP"], options)

    def forward(self, data):
        x = np.frombuffer(data, np.float32).reshape(-1, 64)
        return self.session.run(["probabilities"], {"X": x})[0].tobytes()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Mlp if os.environ["CASE"] == "mlp" else Identity, num=1)
    server.run()
