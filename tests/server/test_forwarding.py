"""Headers that become parameters of their request."""

import asyncio
import re

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, run
from tuili.errors import InvalidArgument
from tuili.server.forwarding import forwarded, patterns_of
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "said" data_type: TYPE_STRING dims: [ -1 ] }
parameters { key: "isolation" value { string_value: "none" } }
"""
SAYING = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.said(each)]) for each in requests]

    def said(self, request):
        return pb_utils.Tensor("said", np.array([request.parameters().encode()], object))
"""
HEADERS = {"x-user": "ann", "x-tenant": "blue", "host": "here"}


class Caller:
    """An origin with these headers."""

    def __init__(self, protocol="HTTP", headers=HEADERS):
        self.protocol = protocol
        self._headers = headers

    def headers(self):
        return self._headers


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x-.*", {"x-user", "x-tenant"}),
        ("X-USER", {"x-user"}),
        ("(?-i)X-USER", set()),
        ("user|host", {"x-user", "host"}),
        (".*", set(HEADERS)),
    ],
)
def test_the_headers_that_match_are_parameters(pattern, names):
    patterns = patterns_of(pattern, "")
    assert set(forwarded(HEADERS, patterns["HTTP"])) == names
    assert "GRPC" not in patterns


@pytest.mark.parametrize("name", ["sequence_id", "priority", "timeout", "triton_final_response"])
def test_a_header_cannot_set_a_parameter_that_has_a_meaning(name):
    with pytest.raises(InvalidArgument, match="reserved for Triton usage"):
        forwarded({name: "1"}, re.compile(".*"))


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(InvalidArgument, match=r"'x-\('.*regular expression"):
        patterns_of("", "x-(")


def ask(origin, parameters=None):
    tensor = InputTensor("x", "FP32", (1,), np.zeros(1, np.float32))
    return InferRequest("m", [tensor], parameters=parameters, origin=origin)


@pytest.fixture
def repository(tmp_path):
    add(tmp_path, "m", 1, config=CONFIG)
    (tmp_path / "m" / "1" / "model.py").write_text(SAYING)
    return tmp_path


def said(repository, asked):
    async def scenario(dataplane):
        return (await infer(dataplane, asked)).outputs[0].data[0].decode()

    return run(repository, scenario, http_header_forward_pattern="x-.*")


def test_a_model_sees_the_headers_and_a_body_cannot_replace_them(repository):
    found = said(repository, ask(Caller(), {"x-user": "eve", "more": 1}))
    assert '"x-user": "ann"' in found.replace('":"', '": "')
    assert "blue" in found
    assert "more" in found
    assert "eve" not in found


def test_another_protocol_forwards_nothing(repository):
    assert "ann" not in said(repository, ask(Caller("GRPC")))


def test_a_request_with_a_refused_header_is_refused(repository):
    async def scenario(dataplane):
        ended = asyncio.get_running_loop().create_future()
        origin = Caller(headers={"timeout": "1"})
        dataplane.submit_stream(ask(origin), lambda answer, final: ended.set_result(answer))
        assert "reserved" in str(await ended)
        with pytest.raises(InvalidArgument, match="reserved"):
            await infer(dataplane, ask(origin))

    run(repository, scenario, http_header_forward_pattern=".*")
