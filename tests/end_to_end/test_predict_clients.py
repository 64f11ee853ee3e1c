"""Clients of TensorFlow Serving's gRPC, through grpcio, against every way to serve gRPC."""

import grpc
import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving
from tuili.server.grpc.schema import SERVING

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def call(server, path, name, message):
    with grpc.insecure_channel(server.url("grpc")) as channel:
        ask = channel.unary_unary(
            path,
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=SERVING[name].FromString,
        )
        return ask(message, timeout=30)


def digits(model):
    message = SERVING["PredictRequest"](output_filter=["y"])
    message.model_spec.name = model
    proto = message.inputs["x"]
    proto.dtype, proto.tensor_content = 1, np.arange(4, dtype=np.float32).tobytes()
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    return message


@pytest.mark.parametrize(
    "options", [(), ("--grpc-impl", "grpcio"), ("--frontends", "2")], ids=("own", "grpcio", "two")
)
def test_a_prediction_is_answered(tmp_path, options):
    add_identity(tmp_path, "small")
    with serving(tmp_path, *options) as server:
        response = call(server, PREDICT, "PredictResponse", digits("small"))
        assert list(response.outputs["y"].float_val) == [0, 1, 2, 3]
        assert (response.model_spec.name, response.model_spec.version.value) == ("small", 1)
        with pytest.raises(grpc.RpcError) as refused:
            call(server, PREDICT, "PredictResponse", digits("none"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
