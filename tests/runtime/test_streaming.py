"""What is copied past the caches is what an ordinary copy makes."""

import numpy as np
import pytest

from tuili.runtime import streaming
from tuili.runtime.streaming import stream

LARGE = 128 << 10


def room(size: int) -> np.ndarray:
    return np.full(size + 256, 7, np.uint8)


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE - 1, LARGE, LARGE + 1, 602_112, 1_000_003])
@pytest.mark.parametrize("offset", [64, 65, 79, 100])
def test_all_bytes_arrive_and_no_others_change(size: int, offset: int):
    source = np.random.default_rng(size).integers(0, 256, size + 1, np.uint8)[1:]
    target = room(size)
    stream(memoryview(target)[offset:], source)
    np.testing.assert_array_equal(target[offset : offset + size], source)
    assert (target[:offset] == 7).all()
    assert (target[offset + size :] == 7).all()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(300_000, dtype=np.float64).reshape(300, 1000)[:, ::2],
        np.arange(300_000, dtype=np.int16).reshape(3, 100_000).T,
        np.arange(200_000, dtype=np.float16).reshape(2, 1, 100_000),
        np.broadcast_to(np.float32(3), (100_000,)),
        np.array(5.0),
    ],
    ids=["strided", "transposed", "halves", "one for all", "no dims"],
)
def test_arrays_of_any_kind_are_laid_out_in_rows(array: np.ndarray):
    target = room(array.nbytes)
    stream(memoryview(target), array)
    assert target[: array.nbytes].tobytes() == array.tobytes()
    assert (target[array.nbytes :] == 7).all()


@pytest.mark.parametrize("shift", [0, 1, 64, 100_000])
@pytest.mark.parametrize("forward", [True, False])
def test_what_overlaps_is_moved(shift: int, forward: bool):
    memory = np.random.default_rng(0).integers(0, 256, 500_000, np.uint8)
    start, begin = (shift, 0) if forward else (0, shift)
    expected = memory[begin : begin + 300_000].copy()
    stream(memoryview(memory)[start:], memory[begin : begin + 300_000])
    np.testing.assert_array_equal(memory[start : start + 300_000], expected)


def test_a_machine_without_the_code_copies_as_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "_copy", lambda: None)
    target, source = room(LARGE), np.arange(LARGE // 4, dtype=np.float32)
    stream(memoryview(target), source)
    assert target[:LARGE].tobytes() == source.tobytes()


def test_x86_has_the_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming.platform, "machine", lambda: "aarch64")
    assert streaming._copy.__wrapped__() is None
    monkeypatch.undo()
    if streaming.platform.machine() == "x86_64":
        assert streaming._copy() is not None
