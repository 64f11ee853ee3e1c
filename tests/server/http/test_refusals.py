from __future__ import annotations

import numpy as np
import pytest

from tests.server.fake_dataplane import FakeDataPlane, FakeTicket
from tests.server.http.wire import Wire, binary_infer
from tuili.errors import Overloaded
from tuili.server.http.application import Application
from tuili.server.http.limits import HttpLimits
from tuili.server.http.refusals import Refusals
from tuili.server.protocol.restrictions import Restrictions


class Full(FakeDataPlane):
    def submit(self, request, reply):
        reply(Overloaded("Exceeds maximum queue size"))
        return FakeTicket()


def wire(refusals: Refusals) -> Wire:
    found = Wire(dataplane=Full())
    found.listener.dispatch = Application(found.dataplane, HttpLimits(), refusals).dispatch
    return found


DATA = np.zeros(1, np.float32).tobytes()
GOOD = {"name": "A", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}


@pytest.mark.parametrize("status", [503, 429])
def test_an_operator_chooses_the_status_of_overload(status: int):
    answer = wire(Refusals(overload_status=status)).answer(binary_infer({"inputs": [GOOD]}, DATA))
    assert (answer.status, answer.headers["retry-after"]) == (status, "1")


@pytest.mark.parametrize(
    ("change", "ours", "tritons"),
    [
        ({"shape": [-1]}, 400, 500),
        ({"shape": None}, 400, 500),
        ({"name": 3}, 400, 500),
        ({"parameters": {}}, 400, 400),
        ({"parameters": {"binary_data_size": 3}}, 400, 400),
    ],
)
def test_triton_calls_json_mistakes_internal_errors(change: dict, ours: int, tritons: int):
    data = binary_infer({"inputs": [{**GOOD, **change}]}, DATA)
    assert wire(Refusals()).answer(data).status == ours
    assert wire(Refusals(json_mistake_status=500)).answer(data).status == tritons


def test_binary_replies_are_coded_for_clients_that_name_one_coding():
    tensor = {**GOOD, "shape": [1000], "parameters": {"binary_data_size": 4000}}
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    for accept, coding in (("gzip", "gzip"), ("gzip, deflate", None)):
        extra = {"Accept-Encoding": accept}
        answer = Wire().answer(binary_infer(document, bytes(4000), **extra))
        assert answer.headers.get("content-encoding") == coding


def test_a_restricted_part_is_for_those_with_the_header():
    limits = HttpLimits(restrictions=Restrictions({"inference": ("key", "secret")}))
    found = Wire()
    found.listener.dispatch = Application(found.dataplane, limits).dispatch
    asked = binary_infer({"inputs": [GOOD]}, DATA)
    assert found.answer(asked).status == 403
    allowed = binary_infer({"inputs": [GOOD]}, DATA, Key="secret")
    assert found.answer(allowed).status == 200
