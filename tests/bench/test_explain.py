"""`tuili explain` and `tuili profile`: the account adds up, and files are what they claim."""

import itertools
import json
import re
import xml.etree.ElementTree as ET

import onnx
import pytest
from typer.testing import CliRunner

from tuili.bench.explain.account import Account, Row, families_of
from tuili.bench.explain.page import page
from tuili.bench.explain.peaks import Peaks
from tuili.bench.explain.text import summary
from tuili.cli.main import app

RUNNER = CliRunner()
NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 16, 12, 12] x) => (float[n, 16, 12, 12] y)
<float[16, 16, 3, 3] w> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w)
    b = Relu(a)
    c = Sigmoid(b)
    d = ReduceMean <axes = [2, 3], keepdims = 1> (b)
    y = Mul(c, d)
}"""
LOOP = """<ir_version: 8, opset_import: ["": 17]>
net (float[4] x, int64 m) => (float[4] y)
<bool go = {1}> {
    y = Loop (m, go, x) <body = round (int64 i, bool c, float[4] a) => (bool d, float[4] b) {
        d = Identity(c)
        b = Tanh(a)
    }>
}"""
PEAKS = Peaks(100.0, 80.0, 40.0, 20.0)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    import numpy as np
    from onnx import numpy_helper

    model = onnx.parser.parse_model(NET)
    weights = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    path = tmp_path_factory.mktemp("explain") / "net.onnx"
    onnx.save(model, path)
    return path


def run(*arguments):
    done = RUNNER.invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_account_adds_up_and_the_page_is_whole(net, tmp_path):
    files = tmp_path / "page.html", tmp_path / "rows.json"
    text = run("explain", net, "--shape", "x=2x16x12x12", "--html", files[0], "--json", files[1])
    whole = json.loads(files[1].read_text())
    rows = whole["rows"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert sum(row["ms"] for row in rows) <= whole["run_ms"] * 1.5
    convolutions = [row for row in rows if row["label"].startswith("Conv ")]
    assert sum(row["flops"] for row in convolutions) > 0
    assert {row["family"] for row in convolutions} <= set(families_of("Conv"))
    assert re.search(r"GFLOP/s a core, .* GB/s from near cache", text)
    svg = re.search(r"<svg.*</svg>", files[0].read_text(), re.DOTALL)
    assert len(ET.fromstring(svg.group()).findall("{*}circle")) == sum(
        1 for row in rows if row["flops"] and row["bytes"]
    )


def test_a_model_with_a_loop_is_explained(tmp_path):
    onnx.save(onnx.parser.parse_model(LOOP), tmp_path / "net.onnx")
    run("explain", tmp_path / "net.onnx", "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert any(row["label"].startswith("Tanh ") for row in rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_trace_has_spans_that_do_not_overlap_on_a_thread(net, tmp_path, threads):
    path = tmp_path / "trace.json"
    run("profile", net, "--shape", "x=2x16x12x12", "--threads", threads, "-o", path)
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    assert events
    assert {event["tid"] for event in events} <= set(range(threads))
    for thread in range(threads):
        mine = sorted((e["ts"], e["dur"]) for e in events if e["tid"] == thread)
        assert all(a + d <= b + 1e-9 for (a, d), (b, _) in itertools.pairwise(mine))
        assert all(duration >= 0 for _, duration in mine)


@pytest.mark.parametrize(
    ("flops", "size", "threads", "ns"),
    [
        (1000, 0, 1, 10.0),
        (1000, 0, 2, 5.0),
        (0, 800, 1, 10.0),  # near
        (0, 1 << 20, 1, (1 << 20) / 40),  # far
        (0, 1 << 30, 1, (1 << 30) / 20),  # memory
        (1000, 800, 1, 10.0),
    ],
)
def test_the_roofline_is_the_slower_of_arithmetic_and_bytes(flops, size, threads, ns):
    assert PEAKS.attainable(flops, size, threads) == pytest.approx(ns)


def test_what_is_not_fused_does_not_bury_the_rest():
    unfused = [(f"n{index}", "why") for index in range(40)]
    told = list(summary(Account("m", "t", 1, PEAKS, [], 1.0, 0.5, [], [], unfused, [])))
    assert [line for line in told if line.startswith("not fused: n")] == [
        f"not fused: n{index}: why" for index in range(5)
    ]
    assert "not fused: 35 more; --json has them all" in told


def test_names_from_a_model_are_no_markup_in_the_page():
    row = Row("<script>", "k", "f", (), 1.0, 1.0, 10, 10, 1.0, 0.1, 0.1, "memory", "a & b")
    text = page(Account("<b>", "t", 1, PEAKS, [row], 1.0, 0.5, [], [], [("<i>", "why")], []))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "a &amp; b" in text
