"""The access log: a line for every request, whatever became of it."""

import asyncio
import json
import time

import numpy as np
import pytest

from tests.server.grpc import wire as grpc_wire
from tests.server.http import wire as http_wire
from tests.server.test_dataplane import add, plane
from tests.server.test_express import Grpc, Http, answered
from tuili.server.grpc.listener import GrpcListener
from tuili.server.http.listener import HttpListener
from tuili.server.telemetry.access_log import AccessLog

NOON = 1_700_049_600
X = {"x": np.ones((1, 2), np.float32)}


def logged(repository, file, scenario):
    """The lines after a scenario over a data plane with a log."""
    add(repository, "m", 1)

    async def run():
        dataplane = plane(repository, access_log=str(file))
        await dataplane.start()
        await scenario(dataplane)
        await dataplane.close(10)

    asyncio.run(run())
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def with_log(monkeypatch):
    """Have the listeners of wires keep a log."""

    def use(dataplane):
        for wire, kind in ((http_wire, HttpListener), (grpc_wire, GrpcListener)):

            def made(first, limits, kind=kind, **more):
                return kind(first, limits, dataplane.access_log, **more)

            monkeypatch.setattr(wire, kind.__name__, made)

    return use


@pytest.mark.parametrize(("client", "path"), [
    (Http, "/v2/models/m/infer"), (Grpc, "/inference.GRPCInferenceService/ModelInfer"),
])  # fmt: skip
def test_every_request_has_a_line(tmp_path, with_log, client, path):
    async def scenario(dataplane):
        with_log(dataplane)
        asked = client(dataplane, None)
        for _ in range(3):  # the first goes the long way, the others the express way
            asked.ask("m", X)
            await answered([asked])

    lines = logged(tmp_path / "models", tmp_path / "log", scenario)
    assert [(each["protocol"].lower(), each["path"], each["model"]) for each in lines] == [
        (client.__name__.lower(), path, "m")
    ] * 3
    assert {each["status"] for each in lines} == {200 if client is Http else 0}
    assert all(each["bytes_in"] >= 8 and each["bytes_out"] >= 8 for each in lines)
    assert all(0 <= each["ms"] < 60_000 and each["time"].endswith("Z") for each in lines)


def test_refusals_and_clients_that_left_have_a_line(tmp_path, with_log):
    async def scenario(dataplane):
        with_log(dataplane)
        wire = http_wire.Wire(dataplane=dataplane)
        wire.call("GET", "/v2/models/nobody")
        wire.call("GET", "/nowhere")
        ask = Http(dataplane, None)
        ask.ask("m", X)
        ask.wire.connection.connection_lost(None)
        refused = grpc_wire.Wire(dataplane=dataplane).call(grpc_wire.infer_request(model="nobody"))
        assert refused.status == 5

    lines = logged(tmp_path / "models", tmp_path / "log", scenario)
    assert [each["status"] for each in lines] == [404, 404, 499, 5]


def test_lines_have_the_time_of_day_when_it_was_set_meanwhile(tmp_path, monkeypatch):
    async def run():
        log = AccessLog(str(tmp_path / "log"))
        for hours in (0, 1, -2):
            now_ns = (NOON + hours * 3600) * 10**9
            monkeypatch.setattr(time, "time_ns", lambda now_ns=now_ns: now_ns)
            began_ns = time.monotonic_ns() - 500_000_000
            log.add("a", "HTTP", ("GET", "/"), 200, began_ns, (0, 0))
        log.close()

    asyncio.run(run())
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [each["time"][11:16] for each in lines] == ["11:59", "12:59", "09:59"]
    assert all(each["ms"] >= 500 for each in lines)


def test_no_log_makes_no_logged_connection(tmp_path):
    listener = http_wire.Wire().listener
    assert type(listener.connect()).__name__ == "HttpConnection"
