"""Comparisons: agreement, ratios, and how failures are told."""

import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tuili.bench import engines, report, rounds
from tuili.bench.engines import Loaded, Settings, load_engine
from tuili.bench.rounds import Comparison, Timing, compare, difference, geometric_mean
from tuili.errors import InvalidArgument, InvalidModel

FEEDS = {"x": np.ones((1, 3), np.float32)}


def timing(engine, *rounds_ms):
    return Timing(engine, list(rounds_ms), 1.0, 2.0, 1e-6)


def failing(path, feeds, settings):
    raise InvalidModel("not a model")


@pytest.fixture
def two_engines(monkeypatch):
    """An engine of ours that is off by a millionth, and a peer."""

    def loader(name, factor):
        return lambda path, feeds, settings: Loaded(name, lambda: [feeds["x"] * factor], 0.5)

    table = {"tuili": loader("tuili", 1 + 1e-6), "onnxruntime": loader("onnxruntime", 1)}
    monkeypatch.setattr(engines, "LOADERS", table | {"openvino": failing})
    monkeypatch.setattr(engines, "find_spec", lambda name: True)
    monkeypatch.setattr(rounds, "ROUND_S", 1e-6)


def test_difference_is_relative_to_the_largest_value():
    assert difference([np.array([1.0, 98.0])], [np.array([0.0, 100.0])]) == pytest.approx(0.02)


def test_difference_of_other_shapes_is_infinite():
    assert difference([np.ones(2)], [np.ones(3)]) == math.inf


def test_geometric_mean_treats_twice_and_half_alike():
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1)


def test_ratio_is_against_the_fastest_peer():
    comparison = Comparison(
        "m", {}, [timing("tuili", 1, 2, 9), timing("onnxruntime", 8), timing("openvino", 3)]
    )
    assert comparison.ratio == 1.5
    assert comparison.best_peer.engine == "openvino"


def test_ratio_needs_a_peer():
    assert Comparison("m", {}, [timing("tuili", 1)]).ratio is None


def test_compare_times_all_and_keeps_failures(two_engines):
    found = compare(
        Path("net.onnx"), FEEDS, ["tuili", "onnxruntime", "openvino"], Settings(), rounds=3
    )
    assert [len(t.rounds_ms) for t in found.timings] == [3, 3]
    assert found.failures == {"openvino": "not a model"}
    assert found.timings[0].difference == pytest.approx(1e-6, rel=0.1)
    assert found.timings[0].load_ms == 500


def test_engine_that_answers_wrongly_is_not_timed(two_engines, monkeypatch):
    def wrong(path, feeds, settings):
        return Loaded("openvino", lambda: [feeds["x"] * 1.5], 0.5)

    monkeypatch.setitem(engines.LOADERS, "openvino", wrong)
    found = compare(Path("net.onnx"), FEEDS, ["tuili", "onnxruntime", "openvino"], Settings(), 2)
    assert [t.engine for t in found.timings] == ["tuili", "onnxruntime"]
    assert found.failures == {"openvino": "wrong answers, off by 0.5"}


def test_not_a_number_is_a_wrong_answer():
    assert difference([np.array([np.nan])], [np.array([1.0])]) == math.inf


def test_table_and_record_show_every_engine(two_engines):
    found = compare(Path("net.onnx"), FEEDS, ["tuili", "onnxruntime", "openvino"], Settings(), 2)
    console = Console(width=160)
    with console.capture() as capture:
        console.print(report.table([found, found], Settings()))
    text = capture.get()
    assert "net 1x3" in text
    assert "failed" in text
    assert "geometric mean" in text
    assert "| net 1x3 |" in report.markdown([found, found])
    kept = report.record([found], Settings())
    assert kept["comparisons"][0]["failures"] == {"openvino": "not a model"}
    assert kept["machine"]["cores"] >= 1


def test_unknown_engine_is_refused():
    with pytest.raises(InvalidArgument, match="unknown engine 'onnxruntim'. Did you mean"):
        load_engine("onnxruntim", Path("m.onnx"), FEEDS, Settings())


def test_engine_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="'openvino' is not installed"):
        load_engine("openvino", Path("m.onnx"), FEEDS, Settings())
