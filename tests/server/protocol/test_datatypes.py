"""Tensor bytes on the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidArgument
from tuili.server.protocol.datatypes import NUMPY, decode, encode


@pytest.mark.parametrize("datatype", sorted(set(NUMPY) - {"BYTES"}))
def test_fixed_size_types_are_views_of_the_bytes(datatype):
    array = np.arange(6).reshape(2, 3).astype(NUMPY[datatype])
    raw = bytes(encode(array, datatype))
    found = decode("x", datatype, (2, 3), raw)
    assert found.dtype == NUMPY[datatype]
    assert found.base is not None
    np.testing.assert_array_equal(found, array)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_elements_come_back(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    found = decode("x", "BYTES", (len(items),), encode(array, "BYTES"))
    assert found.tolist() == items


def test_text_becomes_utf8():
    assert encode(np.array(["é"], dtype=object), "BYTES") == b"\x02\x00\x00\x00\xc3\xa9"


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "text"),
    [
        ("FP32", (2,), b"\0" * 7, "7 bytes of data, but FP32 [2] takes 8"),
        ("FP99", (1,), b"", "unknown datatype 'FP99'"),
        ("FP32", (-1,), b"", "negative dim -1"),
        ("FP32", (1 << 40, 1 << 40), b"", "too many elements"),
        ("FP32", (0, 1 << 40, 1 << 40), b"", "too many elements"),
        ("FP64", (0, 1 << 60), b"", "too many elements"),
        ("FP32", (1,) * 33, bytes(4), "33 dims, expected 32 at most"),
        ("BYTES", (2,), b"\0" * 7, "only 3 bytes available"),
        ("BYTES", (1,), b"\x05\0\0\0ab", "expecting string of length 5 but only 2 bytes available"),
        ("BYTES", (1,), b"\x01\0\0\0ab", "expecting 4 bytes but only 1 bytes available"),
        ("BYTES", (1,), b"\0\0\0\0" * 3, "unexpected number of string elements 2"),
        ("BYTES", (1 << 61,), b"", "got 0"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype, shape, raw, text):
    with pytest.raises(InvalidArgument) as caught:
        decode("x", datatype, shape, raw)
    assert text in str(caught.value)


@given(st.binary(max_size=64), st.integers(0, 5))
def test_hostile_bytes_raise_our_error_only(raw, count):
    try:
        found = decode("x", "BYTES", (count,), raw)
    except InvalidArgument:
        return
    assert encode(found, "BYTES") == raw
