"""What is told of every engine: calls and costs, and answers to many at once."""

import csv
import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tuili.bench import alone, offline, report, rounds
from tuili.bench.alone import Costs, costs
from tuili.bench.engines import Loaded, Settings, load_engine
from tuili.bench.rounds import Comparison, Timing, compare
from tuili.errors import Unsupported

OFFLINE = Settings(threads=2, scenario="offline")
FEEDS = {"x": np.ones((1, 3), np.float32)}


def answered():
    return [FEEDS["x"]]


def loaded(engine, *, shared=True):
    return Loaded(engine, answered, 0.5, another=(lambda: answered) if shared else None)


@pytest.fixture
def net(tmp_path):
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,3] x) => (float[n,3] y) {y = Abs(x)}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def two_engines(monkeypatch):
    """One that many may ask at once, and one that answers one at a time."""
    table = {"tuili": loaded("tuili"), "MNN": loaded("MNN", shared=False)}
    monkeypatch.setattr(rounds, "load_engine", lambda name, *_: table[name])
    monkeypatch.setattr(rounds, "ROUND_S", 1e-6)
    monkeypatch.setattr(offline, "LEAST_S", 0.0)


def test_a_single_stream_tells_percentiles_of_its_calls(two_engines):
    (own, _) = compare(Path("net.onnx"), FEEDS, ["tuili", "MNN"], Settings(), 3).timings
    assert list(own.percentiles_ms) == [50, 90, 99]
    assert own.min_ms <= own.percentiles_ms[99]


def test_offline_leaves_out_who_answers_one_at_a_time(two_engines):
    found = compare(Path("net.onnx"), FEEDS, ["tuili", "MNN"], OFFLINE, 2)
    assert [timing.engine for timing in found.timings] == ["tuili"]
    assert found.failures == {"MNN": "MNN answers one at a time, offline asks 2 at once"}
    assert found.timings[0].percentiles_ms == {}


def test_offline_asks_on_one_thread_each():
    assert (OFFLINE.run_threads, Settings(threads=2).run_threads) == (1, 2)


def test_everybody_is_asked_at_the_same_time():
    both = threading.Barrier(2, timeout=20)
    assert offline.seconds_an_answer([both.wait, both.wait], least_s=0) > 0


def test_one_caller_needs_no_other():
    assert offline.callers(loaded("MNN", shared=False), 1) == [answered]
    with pytest.raises(Unsupported, match="MNN answers one at a time"):
        offline.callers(loaded("MNN", shared=False), 2)


def test_costs_are_those_of_a_process_of_its_own(net):
    feeds = {"x": np.array([[-1, 2, -3]], np.float32)}
    file = load_engine("tuili", net, feeds, Settings()).file
    found = costs("tuili", file, feeds, Settings())
    assert 10 < found.peak_mb < 1000
    assert found.size_mb == pytest.approx(file.stat().st_size / 1e6)
    assert 0 < found.cpu_ms < 1000
    assert found.first_run_ms > 0


def test_what_fails_alone_says_why(net, tmp_path):
    with pytest.raises(Unsupported, match=r"tuili alone in a process failed: .*gone\.onnx"):
        costs("tuili", tmp_path / "gone.onnx", FEEDS, Settings())


def test_an_engine_that_fails_alone_keeps_its_times(two_engines, monkeypatch):
    def fail(engine, *_):
        raise Unsupported(f"{engine} alone in a process failed: killed")

    monkeypatch.setattr(rounds, "costs", fail)
    found = compare(Path("net.onnx"), FEEDS, ["tuili"], Settings(), 2, with_costs=True)
    assert [(timing.engine, timing.costs) for timing in found.timings] == [("tuili", None)]
    assert found.failures == {"tuili": "tuili alone in a process failed: killed"}


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_bytes(b"w" * 3000)
    (tmp_path / "manifest").write_bytes(b"m" * 1000)
    monkeypatch.setattr(alone, "load_engine", lambda *_: loaded("tuili"))
    monkeypatch.setattr(alone, "LEAST_S", 0.0)
    assert alone.measured("tuili", tmp_path, FEEDS, Settings()).size_mb == 0.004


OWN = Timing(
    "tuili", [2.0, 1.0, 4.0], 3.0, 5.0, 1e-6, {50: 2.0, 90: 3.0, 99: 4.0},
    Costs(3.0, 7.0, 2.5, 60.0, 19.0),
)  # fmt: skip
PEER = Timing("openvino", [3.0], 30.0, 0.0, 0.0)
FOUND = Comparison("net", {"x": (1, 3)}, [OWN, PEER])


def test_a_line_of_csv_for_each_engine():
    own, peer = csv.DictReader(io.StringIO(report.csv_rows([FOUND])))
    assert (own["engine"], own["p99_ms"], own["answers_per_s"], own["peak_MB"]) == (
        "tuili", "4", "500", "60",
    )  # fmt: skip
    assert (peer["engine"], peer["min_ms"], peer["p99_ms"], peer["peak_MB"]) == (
        "openvino", "3", "", "",
    )  # fmt: skip


def test_columns_that_nobody_filled_are_not_shown():
    plain = replace(FOUND, timings=[PEER])
    names = [str(column.header) for column in report.details([plain]).columns]
    assert "answers/s" in names
    assert "p99 ms" not in names
    assert "peak MB" not in names


def test_times_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    report.plot([FOUND, replace(FOUND, model="other", timings=[PEER])], "t", tmp_path / "bars.svg")
    text = (tmp_path / "bars.svg").read_text()
    assert text.startswith("<?xml")


def test_a_file_beside_the_model_is_what_litert_runs(net):
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(Unsupported, match=r"net\.tflite beside net\.onnx, which is not there"):
        load_engine("LiteRT", net, FEEDS, Settings())
