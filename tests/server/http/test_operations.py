from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tests.server.fake_dataplane import FakeDataPlane
from tests.server.http.wire import Wire, request
from tuili.server.dataplane import Json
from tuili.server.http.limits import HttpLimits
from tuili.server.http.openapi import openapi_document
from tuili.server.http.routes import ROUTES, Match, RouteTable, WrongMethod, expand


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/", 200),
        ("POST", "/v2", 405),
        ("HEAD", "/v2/nothing", 404),
        ("GET", "/v2/health/live", 200),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/health/other", 404),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/models/simple", 200),
        ("GET", "/v2/models/simple/versions/1", 200),
        ("GET", "/v2/models/simple/versions/one", 404),
        ("GET", "/v2/models/simple/versions/", 404),
        ("GET", "/v2/models//config", 404),
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/simple/ready", 200),
        ("GET", "/v2/models/nope/ready", 400),
        ("GET", "/v2/models/simple/config", 200),
        ("GET", "/v2/models/simple/versions/1/config", 200),
        ("GET", "/v2/models/simple/stats", 200),
        ("GET", "/v2/models/nope/stats", 400),
        ("GET", "/v2/models/simple/infer", 405),
        ("GET", "/v2/trace/setting", 200),
        ("GET", "/v2/models/simple/trace/setting", 200),
        ("GET", "/v2/models/simple/versions/1/trace/setting", 404),
        ("GET", "/v2/logging", 200),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/repository/index", 200),
        ("POST", "/v2/repository/other/index", 501),
        ("POST", "/v2/repository/other/models/m/unload", 501),
        ("GET", "/v2/systemsharedmemory/status", 200),
        ("GET", "/v2/systemsharedmemory/region/x/status", 404),
        ("POST", "/v2/systemsharedmemory/status", 405),
        ("POST", "/v2/systemsharedmemory/unregister", 200),
        ("POST", "/v2/systemsharedmemory/region/x/unregister", 200),
        ("POST", "/v2/systemsharedmemory/register", 400),
        ("GET", "/v2/cudasharedmemory/status", 501),
        ("POST", "/v2/cudasharedmemory/unregister", 501),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 404),
    ],
)
def test_every_route_has_its_status(method: str, path: str, status: int):
    async def call() -> int:
        wire = Wire()
        wire.feed(request(method, path))
        for _ in range(3):
            await asyncio.sleep(0)
        return wire.answers(heads=method == "HEAD")[0].status

    assert asyncio.run(call()) == status


def test_a_wrong_method_is_told_the_right_ones():
    answer = Wire().call("PUT", "/v2/logging")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.error == "Method Not Allowed"


HEALTH = {
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    "/v2/models/simple/ready": {"name": "simple", "ready": True},
    "/": {"status": "alive"},
}


@pytest.mark.parametrize(("path", "told"), HEALTH.items())
def test_health_is_told_in_a_body_as_by_kserve(path: str, told: dict[str, Any]):
    answer = Wire().call("GET", path)
    assert (answer.status, answer.json) == (200, told)


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_told_by_the_status_alone_as_by_triton_which_has_nothing_at_its_root(path: str):
    answer = Wire(HttpLimits(health_in_body=False)).call("GET", path)
    assert (answer.status, answer.body) == ((404, ANY) if path == "/" else (200, b""))


def test_readiness_tells_why_not():
    wire = Wire()
    wire.dataplane.ready = False
    answer = wire.call("GET", "/v2/health/ready")
    assert answer.status == 400
    assert answer.error == "models are still loading; model 'simple': no file"
    answer = wire.call("GET", "/v2/models/simple/ready")
    assert (answer.status, answer.error) == (400, "Model version not ready: no file")


def test_index_takes_ready_as_a_boolean():
    wire = Wire()
    assert len(wire.call("POST", "/v2/repository/index").json) == 2
    assert len(wire.call("POST", "/v2/repository/index", {"ready": True}).json) == 1
    for wrong in (b'"yes"', b"[" * 300 + b"true" + b"]" * 300):
        body = b'{"ready":%b}' % wrong
        found = wire.answer(request("POST", "/v2/repository/index", body))
        assert (found.status, found.error) == (
            400, "Invalid value for 'ready': expected a boolean",
        )  # fmt: skip


async def later(wire: Wire, data: bytes) -> Any:
    """The answer to a request that takes a task."""
    before = len(wire.answers())
    wire.feed(data)
    async with asyncio.timeout(5):
        while len(wire.answers()) == before:  # noqa: ASYNC110 - the wire has no events
            await asyncio.sleep(0)
    return wire.answers()[-1]


def test_models_are_loaded_and_unloaded():
    async def scenario() -> None:
        wire = Wire()
        parameters = {"config": "{}", "file:1/m.bin": base64.b64encode(b"\x00\x01").decode()}
        body = {"parameters": parameters}
        answer = await later(wire, request("POST", "/v2/repository/models/m/load", body))
        assert (answer.status, answer.body) == (200, b"")
        answer = await later(wire, request("POST", "/v2/repository/models/m/load"))
        body = {"parameters": {"unload_dependents": True}}
        answer = await later(wire, request("POST", "/v2/repository/models/m/unload", body))
        assert answer.status == 200
        expected = {"config": "{}", "file:1/m.bin": b"\x00\x01"}
        assert wire.dataplane.loaded == [("m", expected), ("m", None)]
        assert wire.dataplane.unloaded == [("m", True)]
        answer = await later(wire, request("POST", "/v2/repository/models/missing/load"))
        assert answer.status == 500

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"config": 1}, "non-string as string"),
        ({"other": "x"}, "unknown load parameter"),
        ({"file:1/m": "@@"}, "not base64"),
        ([1], "expected an object"),
    ],
)
def test_bad_load_parameters_are_refused(parameters: Any, text: str):
    async def scenario() -> Any:
        body = {"parameters": parameters}
        return await later(Wire(), request("POST", "/v2/repository/models/m/load", body))

    answer = asyncio.run(scenario())
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"key": "/k", "byte_size": 64}, 200, ""),
        ({"key": "/k", "offset": 8, "byte_size": 64}, 200, ""),
        ({"byte_size": 64}, 400, "no 'key' field"),
        ({"key": "/k"}, 400, "no 'byte_size' field"),
        ({"key": 1, "byte_size": 64}, 400, "Unable to parse 'key'"),
        ({"key": "/k", "byte_size": -1}, 400, "Unable to parse 'byte_size'"),
        ({"key": "/k", "offset": 1.5, "byte_size": 1}, 400, "Unable to parse 'offset'"),
        ([], 400, "must be an object"),
    ],
)
def test_regions_are_registered(body: Any, status: int, text: str):
    wire = Wire()
    answer = wire.call("POST", "/v2/systemsharedmemory/region/r/register", body)
    assert answer.status == status
    if text:
        assert text in answer.error
    else:
        (region,) = wire.call("GET", "/v2/systemsharedmemory/region/r/status").json
        assert region == {
            "name": "r",
            "key": "/k",
            "offset": body.get("offset", 0),
            "byte_size": 64,
        }


def test_settings_are_read_and_merged():
    wire = Wire()
    assert wire.call("GET", "/v2/trace/setting").json["trace_rate"] == "1000"
    answer = wire.call("POST", "/v2/models/simple/trace/setting", {"trace_rate": "7"})
    assert answer.json["trace_rate"] == "7"
    assert wire.call("POST", "/v2/logging", {"log_verbose_level": 1}).json["log_verbose_level"] == 1
    assert wire.call("POST", "/v2/logging", {"log_file": "/x"}).status == 501
    assert wire.call("POST", "/v2/logging", [1]).status == 400


def test_the_first_row_of_the_table_wins():
    table = RouteTable()
    assert table.find("GET", ("v2", "models", "stats")) == Match("all_statistics")
    assert table.find("GET", ("v2", "models", "stats", "config")) == Match("model_config", "stats")
    assert table.find("POST", ("v2", "models", "m", "versions", "3", "infer")) == Match(
        "infer", "m", "3"
    )
    assert table.find("PUT", ("v2", "logging")) == WrongMethod(("GET", "POST"))


def test_the_document_describes_every_route():
    document = openapi_document()
    described = {(method, path) for path, entry in document["paths"].items() for method in entry}
    assert described == {
        (method.lower(), path)
        for methods, pattern, _ in ROUTES
        for path in expand(pattern)
        for method in methods.split()
    }
    names = [
        entry["operationId"] for paths in document["paths"].values() for entry in paths.values()
    ]
    assert len(names) == len(set(names))


def test_the_reference_page_lists_every_route():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "wire.md").read_text()
    assert [pattern for _, pattern, _ in ROUTES if f"`{pattern}`" not in page] == []


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"IN": 1}, {"model_name": "repeat", "model_version": "1", "OUT": 0}),
        (
            {"id": "i", "IN": [1]},
            {"id": "i", "model_name": "repeat", "model_version": "1", "OUT": 0},
        ),
    ],
)
def test_generate_maps_keys_to_tensors(document: Any, expected: Any):
    assert Wire().call("POST", "/v2/models/repeat/generate", document).json == expected


def test_generate_passes_the_other_keys_as_parameters():
    wire = Wire()
    body = {"IN": 1, "a": 1, "parameters": {"b": "x", "c": True}}
    wire.call("POST", "/v2/models/repeat/versions/1/generate", body)
    sent = wire.dataplane.requests[0]
    assert sent.parameters == {"a": 1, "b": "x", "c": True}
    assert sent.version == "1"


@pytest.mark.parametrize(
    ("document", "status", "text"),
    [
        ({"IN": 2}, 500, "exactly 1 response"),
        ({"IN": 0}, 500, "exactly 1 response"),
        ({"IN": [1, 2]}, 400, "can not convert input 'IN'"),
        ({"IN": "x"}, 400, "non-signed-integer as signed-integer"),
        ({"IN": 1, "parameters": {"x": {}}}, 400, "Converting keyword: 'parameters': parameter"),
        ({"IN": 1, "x": {}}, 400, "invalid type"),
        ({"IN": 1, "triton_x": 1}, 400, "reserved"),
        ({"IN": 1, "parameters": 3}, 400, "Expected JSON object"),
        ({"IN": 1, "id": 3}, 400, "Unable to parse 'id'"),
        ([], 400, "must be an object"),
    ],
)
def test_generate_refuses(document: Any, status: int, text: str):
    answer = Wire().call("POST", "/v2/models/repeat/generate", document)
    assert answer.status == status
    assert text in answer.error


def test_generate_refuses_an_input_that_comes_twice():
    answer = Wire().call("POST", "/v2/models/repeat/generate", b'{"IN": 1, "a": {"b": 1}, "IN": 2}')
    assert (answer.status, answer.error) == (400, "input 'IN' already exists in request")


@pytest.mark.parametrize(("model", "kind"), [("busy", "application/json"), ("bug", "text/event")])
def test_a_stream_that_is_refused_never_begins(model: str, kind: str):
    class Named(FakeDataPlane):
        def model_metadata(self, model: str, version: str = "") -> Any:
            return super().model_metadata("repeat")

    wire = Wire(dataplane=Named())
    answer = wire.call("POST", f"/v2/models/{model}/generate_stream", {"IN": 1})
    assert answer.status in (500, 503)
    assert answer.headers["content-type"].startswith(kind)


def test_generate_stream_sends_events():
    answer = Wire().call("POST", "/v2/models/repeat/generate_stream", {"IN": 3})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.body.split(b"\n\n")
    assert len(events) == 4
    assert events[2] == b'data: {"model_name":"repeat","model_version":"1","OUT":2}'


def test_a_stream_that_fails_first_has_its_status():
    wire = Wire()
    answer = wire.call("POST", "/v2/models/nope/generate_stream", {"IN": 3})
    assert answer.status == 404
    assert wire.call("GET", "/v2/health/live").status == 200


@pytest.mark.parametrize("path", ["/v2/models/stats", "/v2/models/identity/stats"])
def test_statistics_of_thousands_are_written_with_turns_for_others(path: str):
    class Many(FakeDataPlane):
        def each_statistics(self, model: str = "", version: str = "") -> Iterator[Json]:
            for _ in range(3000):
                yield from super().each_statistics(model, version)

    async def check() -> None:
        wire = Wire(dataplane=Many())
        wire.listener.connections.loop = asyncio.get_running_loop()
        wire.feed(request("GET", path))
        assert not wire.transport.sent
        assert Wire(beside=wire).call("GET", "/v2/health/live").status == 200
        async with asyncio.timeout(10):
            while not wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        (answer,) = wire.answers()
        assert len(answer.json["model_stats"]) == 3000

    asyncio.run(check())
