"""Metrics that models make: who holds them, what they take, and their text."""

import pytest

from tuili.errors import InvalidArgument, NotFound, Unsupported
from tuili.server.telemetry.custom import CustomMetrics

LABELS = {"b": "2", "a": 'quoted "1"'}


def made(kind="counter", bounds=None, labels=LABELS):
    metrics = CustomMetrics()
    metrics.join(1, "m", kind, "a text")
    metrics.add(1, "m", labels, bounds)
    return metrics


def test_a_counter_grows_and_is_told_with_its_labels_in_order():
    metrics = made()
    assert metrics.act("m", LABELS, "increment", 1.5) == 1.5
    assert metrics.act("m", LABELS, "increment", 2) == 3.5
    assert list(metrics.lines()) == [
        "# HELP m a text",
        "# TYPE m counter",
        r'm{a="quoted \"1\"",b="2"} 3.5',
    ]


def test_a_gauge_is_set_and_has_no_braces_without_labels():
    metrics = made("gauge", labels={})
    metrics.act("m", {}, "set", -7)
    assert metrics.act("m", {}, "increment", -1) == -8
    assert list(metrics.lines())[2:] == ["m -8"]


def test_a_histogram_counts_up_to_its_bounds_and_beyond():
    metrics = made("histogram", [0.1, 1], {"k": "v"})
    for value in (0.0625, 0.1, 0.5, 6.5):
        metrics.act("m", {"k": "v"}, "observe", value)
    assert list(metrics.lines())[2:] == [
        'm_bucket{k="v",le="0.1"} 2',
        'm_bucket{k="v",le="1"} 3',
        'm_bucket{k="v",le="+Inf"} 4',
        'm_sum{k="v"} 7.1625',
        'm_count{k="v"} 4',
    ]


@pytest.mark.parametrize(
    ("kind", "what", "amount", "error"),
    [
        ("counter", "increment", -1, InvalidArgument),
        ("counter", "set", 1, Unsupported),
        ("gauge", "observe", 1, Unsupported),
        ("histogram", "value", 0, Unsupported),
        ("histogram", "increment", 1, Unsupported),
    ],
)
def test_each_kind_takes_what_it_can(kind, what, amount, error):
    metrics = made(kind, [1.0] if kind == "histogram" else None)
    with pytest.raises(error, match="counter only grows|does not support"):
        metrics.act("m", LABELS, what, amount)


def test_what_cannot_be_is_refused():
    metrics = made()
    with pytest.raises(InvalidArgument, match="is a counter and cannot be a gauge"):
        metrics.join(1, "m", "gauge", "")
    with pytest.raises(InvalidArgument, match="cannot be called"):
        metrics.join(1, "no name", "gauge", "")
    with pytest.raises(InvalidArgument, match="cannot be called"):
        metrics.join(1, "nv_inference_count", "counter", "")
    with pytest.raises(InvalidArgument, match="label cannot be called"):
        metrics.add(1, "m", {"a-b": "c"}, None)
    with pytest.raises(NotFound, match="no metric family 'other'"):
        metrics.act("other", {}, "value", 0)
    metrics.join(1, "h", "histogram", "")
    with pytest.raises(InvalidArgument, match="must ascend"):
        metrics.add(1, "h", {}, [1, 1])


def test_holders_share_and_the_last_one_takes_it_along():
    metrics = made()
    metrics.join(2, "m", "counter", "another text")
    metrics.add(2, "m", LABELS, None)
    metrics.act("m", LABELS, "increment", 4)
    metrics.remove(1, "m", LABELS)
    metrics.leave(1, "m")
    assert metrics.act("m", LABELS, "value", 0) == 4
    assert next(metrics.lines()) == "# HELP m a text"
    metrics.gone(2)
    assert list(metrics.lines()) == []
