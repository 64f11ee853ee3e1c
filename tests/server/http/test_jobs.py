"""Asynchronous inference on the wire: submit, ask, fetch, cancel, post."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.server.fake_dataplane import FakeDataPlane
from tests.server.http.wire import Wire, request
from tuili.server.http.application import Application
from tuili.server.http.limits import HttpLimits
from tuili.server.scheduling.jobs import JobLimits

BODY = {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}


def post(path, body=BODY, headers=None):
    return request("POST", path, json.dumps(body).encode(), headers)


async def submitted(wire, model="held", headers=None):
    wire.feed(post(f"/v2/models/{model}/jobs", headers=headers))
    await asyncio.sleep(0)
    return wire.answers()[-1]


def ask(wire, method, path):
    wire.feed(request(method, path))
    return wire.answers()[-1]


def test_a_job_is_queued_then_done_then_fetched():
    async def scenario():
        wire = Wire()
        accepted = await submitted(wire)
        assert (accepted.status, accepted.json["state"]) == (202, "queued")
        path = accepted.headers["location"]
        assert path == f"/v2/jobs/{accepted.json['id']}"
        waiting = ask(wire, "GET", path + "/result")
        assert (waiting.status, waiting.headers["retry-after"]) == (202, "1")
        wire.dataplane.release()
        assert ask(wire, "GET", path).json["result"] == path + "/result"
        found = ask(wire, "GET", path + "/result")
        assert (found.status, found.json["outputs"][0]["data"]) == (200, [1, 2])
        # Fetching does not use it up.
        assert ask(wire, "GET", path + "/result").status == 200

    asyncio.run(scenario())


def test_the_buffer_of_the_connection_may_be_reused_meanwhile():
    async def scenario():
        wire = Wire()
        tensor = {**BODY["inputs"][0], "parameters": {"binary_data_size": 8}}
        del tensor["data"]
        text = json.dumps({"inputs": [tensor]}).encode()
        raw = b"\x00\x00\x80\x3f\x00\x00\x00\x40"
        headers = {"Inference-Header-Content-Length": str(len(text))}
        wire.feed(request("POST", "/v2/models/held/jobs", text + raw, headers))
        path = wire.answers()[-1].headers["location"]
        wire.feed(request("POST", "/v2/models/nope/jobs", b"x" * (len(text) + 8)))
        wire.dataplane.release()
        assert ask(wire, "GET", path + "/result").json["outputs"][0]["data"] == [1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("model", "status", "error"),
    [
        ("nope", 404, "unknown model"),
        ("busy", 503, "Exceeds maximum queue size"),
        ("unwritable", 500, "internal error"),
    ],
)
def test_a_job_that_fails_tells_so(model, status, error):
    async def scenario():
        wire = Wire()
        accepted = await submitted(wire, model)
        assert (accepted.status, accepted.json["state"]) == (202, "failed")
        found = ask(wire, "GET", accepted.headers["location"] + "/result")
        assert found.status == status
        assert error in found.error

    asyncio.run(scenario())


def test_a_request_that_cannot_be_read_makes_no_job():
    async def scenario():
        wire = Wire()
        wire.feed(post("/v2/models/held/jobs", {"inputs": 3}))
        assert wire.answers()[-1].status == 400

    asyncio.run(scenario())


def test_the_same_idempotency_key_is_the_same_job():
    async def scenario():
        wire = Wire()
        headers = {"Idempotency-Key": "order 7"}
        first, second = [await submitted(wire, headers=headers) for _ in range(2)]
        assert first.json["id"] == second.json["id"]
        assert len(wire.dataplane.held) == 1

    asyncio.run(scenario())


def test_cancelling_frees_the_request():
    async def scenario():
        wire = Wire()
        path = (await submitted(wire)).headers["location"]
        assert ask(wire, "DELETE", path).json["state"] == "cancelled"
        assert wire.dataplane.held[0][0].cancelled
        assert ask(wire, "GET", path + "/result").status == 404
        assert ask(wire, "DELETE", path).status == 200
        assert ask(wire, "GET", path).status == 404

    asyncio.run(scenario())


def test_webhooks_are_refused_unless_allowed():
    async def scenario():
        wire = Wire()
        refused = await submitted(wire, headers={"Tuili-Webhook": "http://127.0.0.1:1/x"})
        assert refused.status == 501
        assert "--allow-webhook URL switches them on" in refused.error
        assert not wire.dataplane.held

    asyncio.run(scenario())


class Told:
    """Webhooks that note what they are given."""

    def __init__(self):
        self.posted = []

    def check(self, url):
        return url

    def post(self, url, body, headers, over):
        self.posted.append((url, json.loads(body), headers["Tuili-Job-State"]))


def test_an_answer_too_large_to_be_kept_is_posted_still():
    async def scenario():
        limits, dataplane, told = HttpLimits(), FakeDataPlane(), Told()
        application = Application(dataplane, limits, webhooks=told)
        application.jobs._store.limits = JobLimits(max_bytes=10)
        wire = Wire(limits, dataplane, application=application)
        accepted = await submitted(wire, headers={"Tuili-Webhook": "http://hooks/x"})
        wire.dataplane.release()
        assert ask(wire, "GET", accepted.headers["location"]).json["state"] == "failed"
        ((url, body, state),) = told.posted
        assert (url, state) == ("http://hooks/x", "done")
        assert body["outputs"][0]["data"] == [1, 2]

    asyncio.run(scenario())


def test_a_key_of_another_models_job_is_refused():
    async def scenario():
        wire = Wire()
        headers = {"Idempotency-Key": "order 7"}
        await submitted(wire, headers=headers)
        assert (await submitted(wire, "nope", headers)).status == 409

    asyncio.run(scenario())
