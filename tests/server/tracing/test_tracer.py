"""Traces over both transports: which requests, what is noted, where it is written."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from tests.server.test_dataplane import add, plane
from tests.server.test_express import Grpc, Http, answered
from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import InferRequest
from tuili.server.tracing.config import read
from tuili.server.tracing.spans import Spans
from tuili.server.tracing.trace import Trace

COMPUTED = (
    "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START",
    "COMPUTE_END", "INFER_RESPONSE_COMPLETE", "REQUEST_END",
)  # fmt: skip
MOMENTS = {
    Http: ("HTTP_RECV_START", "HTTP_RECV_END", *COMPUTED, "HTTP_SEND_START", "HTTP_SEND_END"),
    Grpc: (
        "GRPC_WAITREAD_START", "GRPC_WAITREAD_END", *COMPUTED, "GRPC_SEND_START", "GRPC_SEND_END",
    ),
}  # fmt: skip
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling {
  step {
    model_name: "m"
    input_map { key: "x" value: "a" }
    output_map { key: "y" value: "b" }
  }
}
"""
PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def ask(repository, entries, requests=1, client=Http, between=None, model="m", arrays=None):
    """Serve with these `--trace-config`, and send that many requests."""

    async def scenario():
        dataplane = plane(repository, trace_config=tuple(entries), model_control_mode="explicit",
                          load_models=("*",))  # fmt: skip
        await dataplane.start()
        # Two connections' worth of everything; `beside` is for the other protocol.
        wire = client(dataplane, None)
        for number in range(requests):
            if between is not None:
                between(number, dataplane)
            wire.ask(model, arrays or {"x": np.full((1, 2), number, np.float32)})
            await answered([wire])
        settings = dataplane.trace_settings(model)
        assert await dataplane.close(10)
        return settings

    return asyncio.run(scenario())


def moments(records):
    """The moments of each trace, in their order, by its id."""
    found = {}
    for record in records:
        for stamp in record.get("timestamps", ()):
            found.setdefault(record["id"], []).append((stamp["ns"], stamp["name"]))
    return {number: [name for _, name in stamps] for number, stamps in found.items()}


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "models"
    add(folder, "m", 1)
    return folder


@pytest.mark.parametrize("client", [Http, Grpc])
def test_every_moment_of_a_request_is_noted_in_order(repository, tmp_path, client):
    file = tmp_path / "trace.json"
    ask(repository, [f"triton,file={file}", "level=TIMESTAMPS", "rate=1"], 3, client)
    records = json.loads(file.read_text())
    assert [each["model_name"] for each in records if "model_name" in each] == ["m"] * 3
    assert {each.get("model_version", 1) for each in records} == {1}
    for stamps in moments(records).values():
        assert sorted(stamps) == sorted(MOMENTS[client])
        steps = [MOMENTS[client].index(each) for each in stamps]
        assert steps[0] <= 1
        assert (
            stamps.index("QUEUE_START") < stamps.index("COMPUTE_END") < stamps.index("REQUEST_END")
        )


def test_every_nth_request_is_traced_until_so_many_were(repository, tmp_path):
    file = tmp_path / "trace.json"
    entries = [f"triton,file={file}", "level=TIMESTAMPS", "rate=3", "count=2"]
    settings = ask(repository, entries, 12)
    assert settings["trace_count"] == "0"
    assert not file.exists()
    # As in Triton, those of a count go to a file with a number.
    assert len(moments(json.loads((tmp_path / "trace.json.0").read_text()))) == 2


def test_so_many_traces_go_to_a_file_each(repository, tmp_path):
    file = tmp_path / "t"
    ask(repository, [f"triton,file={file}", "level=TIMESTAMPS", "rate=1",
                     "triton,log-frequency=2"], 5)  # fmt: skip
    found = {path.name: path.read_text() for path in tmp_path.glob("t.*")}
    assert {name: len(moments(json.loads(text))) for name, text in found.items()} == {
        "t.0": 2, "t.1": 2, "t.2": 1,
    }  # fmt: skip


def test_a_model_has_settings_of_its_own_while_the_server_runs(repository, tmp_path):
    file = tmp_path / "trace.json"

    def between(number, dataplane):
        if number == 1:
            dataplane.update_trace_settings({"trace_level": ["TIMESTAMPS"], "trace_rate": 1}, "m")
        elif number == 3:
            dataplane.update_trace_settings({"trace_level": ["OFF"]}, "m")

    ask(repository, [f"triton,file={file}"], 5, between=between)
    assert len(moments(json.loads(file.read_text()))) == 2


def test_tensors_are_written_as_text(repository, tmp_path):
    file = tmp_path / "trace.json"
    x = {"x": np.array([[0.5, -1]], np.float32)}
    ask(repository, [f"triton,file={file}", "level=TENSORS", "rate=1"], arrays=x)
    tensors = [each for each in json.loads(file.read_text()) if "tensor" in each]
    assert [(each["activity"], each["tensor"]) for each in tensors] == [
        (activity, {"name": name, "data": "0.5,-1.0", "shape": "1,2", "dtype": "FP32"})
        for activity, name in (("TENSOR_QUEUE_INPUT", "x"), ("TENSOR_BACKEND_OUTPUT", "y"))
    ]


def test_models_of_an_ensemble_are_traced_below_it(repository, tmp_path):
    file = tmp_path / "trace.json"
    (repository / "both" / "1").mkdir(parents=True)
    (repository / "both" / "config.pbtxt").write_text(ENSEMBLE)
    ask(repository, [f"triton,file={file}", "level=TIMESTAMPS", "rate=1"], model="both",
        arrays={"a": np.ones((1, 2), np.float32)})  # fmt: skip
    first = {e["model_name"]: e for e in json.loads(file.read_text()) if "model_name" in e}
    assert first["m"]["parent_id"] == first["both"]["id"]


def test_nothing_stands_in_the_way_of_requests_that_are_not_traced(repository):
    async def scenario():
        dataplane = plane(repository)
        await dataplane.start()
        ways = type(dataplane).submit, type(dataplane).express
        assert (dataplane.submit.__func__, dataplane.express.__func__) == ways
        dataplane.update_trace_settings({"trace_level": ["TIMESTAMPS"]})  # without a file: none
        assert (dataplane.submit.__func__, dataplane.express.__func__) == ways
        await dataplane.close(10)

    asyncio.run(scenario())


@pytest.fixture
def collector():
    """A collector of OTLP over HTTP: its address, and the spans that came."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                raw = gzip.decompress(raw)
            for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("rate", "traced"), [(0, 1), (1, 2)])
def test_spans_go_to_a_collector_below_those_of_the_client(repository, collector, rate, traced):
    url, spans = collector

    class Traced(Http):
        """Its first request is part of a trace of the client's."""

        def ask(self, *given):
            feed, field = self.wire.feed, b"\r\ntraceparent: " + PARENT.encode()
            if not self.asked:
                self.wire.feed = lambda data: feed(data.replace(b"\r\n", field + b"\r\n", 1))
            super().ask(*given)
            self.wire.feed = feed

    entries = ["mode=opentelemetry", f"opentelemetry,url={url}", "level=TIMESTAMPS", f"rate={rate}"]
    ask(repository, entries, 2, client=Traced)
    names = {span.span_id: span.name for span in spans}
    roots = [span for span in spans if span.name == "InferRequest"]
    assert sorted(span.name for span in spans) == sorted(["InferRequest", "compute", "m"] * traced)
    (below,) = [span for span in roots if span.parent_span_id.hex() == PARENT.split("-")[2]]
    assert below.trace_id.hex() == PARENT.split("-")[1]
    assert {"HTTP_RECV_START", "HTTP_SEND_END"} <= {event.name for event in below.events}
    assert {names[s.parent_span_id] for s in spans if s.name == "compute"} == {"m"}


@pytest.mark.parametrize(
    "entry", ["rat=1", "level", "triton,url=x", "mode=jaeger", "opentelemetry,bsp_schedule_delay=x"]
)
def test_unknown_words_are_refused(entry):
    with pytest.raises(InvalidArgument, match=f"--trace-config {entry}: .* Known: level"):
        read([entry])


def test_spans_have_the_time_of_day_when_it_was_set_meanwhile(monkeypatch):
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans, noon_ns = Spans(provider), 1_700_049_600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: noon_ns)
    now_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    trace = Trace(frozenset({"TIMESTAMPS"}), InferRequest("m", [], "1"))
    trace.stamps = {"REQUEST_START": now_ns - 7, "REQUEST_END": now_ns - 2}
    spans.record(trace, {})
    ends = {(span.start_time, span.end_time) for span in exporter.get_finished_spans()}
    assert ends == {(noon_ns - 7, noon_ns - 2)}
