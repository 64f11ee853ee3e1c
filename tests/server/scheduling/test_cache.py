"""The response cache."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.cache import ResponseCache, key_of

OVERHEAD = 550  # of an entry with one array


def array(*values):
    return np.array(values, np.float32)


def test_what_was_put_is_found_and_cannot_be_changed():
    cache = ResponseCache(1000)
    outputs = array(1, 2)
    cache.put(b"k", {"y": outputs}, 0.0)
    outputs[0] = 9
    found = cache.get(b"k", 0.0)
    assert found["y"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0] = 3
    assert cache.get(b"other", 0.0) is None


def test_the_least_recently_used_goes_first():
    cache = ResponseCache(2 * (4 + OVERHEAD))
    cache.put(b"a", {"y": array(1)}, 0.0)
    cache.put(b"b", {"y": array(2)}, 0.0)
    assert cache.get(b"a", 0.0)
    cache.put(b"c", {"y": array(3)}, 0.0)
    assert cache.get(b"b", 0.0) is None
    assert cache.get(b"a", 0.0)
    assert cache.evictions == 1


def test_entries_grow_old():
    cache = ResponseCache(1000, ttl_s=10)
    cache.put(b"k", {"y": array(1)}, 0.0)
    assert cache.get(b"k", 9.9)
    assert cache.get(b"k", 10.0) is None
    # It is kept for those who would rather have an old answer than none.
    assert cache.get(b"k", 99.0, stale=True)


def test_what_is_larger_than_the_cache_is_not_kept():
    cache = ResponseCache(100)
    cache.put(b"k", {"y": np.zeros(1000)}, 0.0)
    assert len(cache) == 0


@pytest.mark.parametrize("names", ["", "y", "xyz"])
def test_small_answers_take_no_more_memory_than_they_may(names):
    cache = ResponseCache(1 << 20)
    outputs = {name: array(1) for name in names}
    before = tracemalloc.start() or tracemalloc.get_traced_memory()[0]
    for number in range(5000):
        cache.put(key_of(1, {"x": array(number)}), outputs, 0.0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert cache.evictions
    assert taken < 1.5 * cache.size_bytes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": array(1)}, {"x": array(2)}),
        ({"x": array(1)}, {"y": array(1)}),
        ({"x": array(1, 2)}, {"x": array(1, 2).reshape(2, 1)}),
        ({"x": array(0)}, {"x": np.zeros(1, np.int32)}),
        ({"x": np.array([b"ab", b"c"], object)}, {"x": np.array([b"a", b"bc"], object)}),
    ],
)
def test_different_inputs_have_different_keys(one, other):
    assert key_of(1, one) != key_of(1, other)
    assert key_of(1, one) != key_of(2, one)
    assert key_of(1, one) == key_of(1, {name: a.copy() for name, a in one.items()})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=40))
def test_bytes_stay_within_the_bound(puts):
    cache = ResponseCache(5 * OVERHEAD)
    for key, size in puts:
        cache.put(bytes([key]), {"y": np.zeros(size, np.float32)}, 0.0)
        assert cache.size_bytes <= 5 * OVERHEAD
        assert cache.size_bytes == sum(e.size for e in cache._entries.values())
