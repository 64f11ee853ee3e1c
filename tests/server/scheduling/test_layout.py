"""Layouts: ragged and padded batches, and their outputs given back to the right requests."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.layout import BatchInput, Layout, Padding

INT = np.dtype(np.int32)


@dataclass
class Request:
    arrays: dict
    rows: int = 1
    plain: dict | None = None


def joined(batch, name):
    return np.concatenate([item.arrays[name] for item in batch])


# Two requests: one row of 3 elements, two rows of 2 elements each.
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("BATCH_ELEMENT_COUNT", [3, 4]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [3, 7]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 3, 7]),
        ("BATCH_ITEM_SHAPE", [[3], [2], [2]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [3, 2, 2]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0, 0, 0, 0]),
    ],
)
def test_every_kind_of_batch_input(kind, expected):
    layout = Layout(frozenset({"x"}), (BatchInput("i", kind, "x", INT),))
    batch = [Request({"x": np.arange(3)[None]}), Request({"x": np.arange(4).reshape(2, 2)}, 2)]
    assert layout.prepare(batch) == 3
    assert joined(batch, "i").tolist() == expected
    assert joined(batch, "i").dtype == INT
    assert joined(batch, "x").tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_a_batch_laid_out_again_is_the_same():
    layout = Layout(frozenset({"x"}), (BatchInput("i", "BATCH_ELEMENT_COUNT", "x", INT),))
    batch = [Request({"x": np.arange(size)[None]}) for size in (2, 5)]
    layout.prepare(batch)
    layout.prepare(batch[1:])
    assert joined(batch[1:], "x").tolist() == [0, 1, 2, 3, 4]
    assert joined(batch[1:], "i").tolist() == [5]


def test_requests_with_ragged_inputs_share_a_lane_whatever_their_lengths():
    layout = Layout(frozenset({"x"}))
    y = np.zeros((1, 2))
    assert layout.lane({"x": np.zeros((1, 3)), "y": y}) == layout.lane(
        {"x": np.zeros((2, 9)), "y": y}
    )
    assert layout.lane({"y": y}) != layout.lane({"y": np.zeros((1, 3))})


Rows = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=5)


@given(Rows)
def test_scattered_outputs_return_to_their_requests(sizes):
    layout = Layout(frozenset({"x"}), scattered={"y": "x"})
    batch = [
        Request({"x": np.full((rows, width), at)}, rows) for at, (rows, width) in enumerate(sizes)
    ]
    layout.prepare(batch)
    outputs = {
        "y": joined(batch, "x") * 2,
        "z": np.repeat(range(len(sizes)), [r for r, _ in sizes]),
    }
    for at, (item, mine) in enumerate(zip(batch, layout.divide(batch, outputs), strict=True)):
        np.testing.assert_array_equal(mine["y"], item.plain["x"] * 2)
        np.testing.assert_array_equal(mine["z"], [at] * item.rows)


@given(Rows)
def test_padded_outputs_are_cropped_again(sizes):
    layout = Layout(
        padding=Padding((2, 4, 8), {"x": 1}, {"y": 1}, {"x": -1}), row_buckets=(4, 8, 16)
    )
    for wanted in {layout.lane({"x": np.zeros(size)}) for size in sizes}:
        batch = [
            Request({"x": np.full((rows, width), at)}, rows)
            for at, (rows, width) in enumerate(sizes)
            if layout.lane({"x": np.zeros((rows, width))}) == wanted
        ]
        rows = layout.prepare(batch)
        x = joined(batch, "x")
        assert len(x) == rows == layout.filled(sum(item.rows for item in batch))
        assert rows in (4, 8, 16)
        assert x.shape[1] in (2, 4, 8, 9)
        outputs = {"y": x * 2, "sum": np.where(x < 0, 0, x).sum(axis=1)}
        for item, mine in zip(batch, layout.divide(batch, outputs), strict=True):
            np.testing.assert_array_equal(mine["y"], item.plain["x"] * 2)
            np.testing.assert_array_equal(mine["sum"], item.plain["x"].sum(axis=1))


def test_requests_that_leave_out_different_inputs_share_no_lane():
    layout = Layout(frozenset({"x", "y"}))
    both = {"x": np.zeros((1, 3)), "y": np.zeros((1, 2))}
    assert layout.lane({"x": both["x"]}) != layout.lane(both)


def test_outputs_are_cropped_where_a_padded_input_is_left_out():
    layout = Layout(padding=Padding((4,), {"a": 1, "b": 1}, {"y": 1}))
    item = Request({"b": np.arange(3)[None]})
    layout.prepare([item])
    (mine,) = layout.divide([item], {"y": np.arange(4)[None]})
    assert mine["y"].tolist() == [[0, 1, 2]]
