"""What callers hand in where an array is expected."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tuili.errors import InvalidArgument
from tuili.runtime.given import as_array
from tuili.tensors import DType, TensorSpec

ONE_TWO = np.array([1, 2], np.float32)


class Exchanged:
    """An array of another package, which speaks DLPack alone."""

    def __dlpack__(self, **options: Any) -> Any:
        return ONE_TWO.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return ONE_TWO.__dlpack_device__()


class Elsewhere:
    """An array on another device."""

    def __array__(self, *options: Any, **named: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")


def spec(dtype: DType) -> TensorSpec:
    return TensorSpec("x", dtype, ("n",))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (DType.F32, [1, 2.5], np.array([1, 2.5], np.float32)),
        (DType.F32, (True, 2), np.array([1, 2], np.float32)),
        (DType.F32, 1, np.array(1, np.float32)),
        (DType.F32, [], np.array([], np.float32)),
        (DType.I64, [[1], [-2]], np.array([[1], [-2]], np.int64)),
        (DType.U8, [0, 255], np.array([0, 255], np.uint8)),
        (DType.BOOL, [True, False], np.array([True, False])),
        (DType.BF16, [1.5, 2], np.array([1.5, 2], ml_dtypes.bfloat16)),
        (DType.F32, Exchanged(), ONE_TWO),
        (DType.F32, memoryview(ONE_TWO), ONE_TWO),
        (DType.F32, np.float64(1), np.float64(1)),  # which says what it is: refused further on
    ],
)
def test_what_has_numbers_becomes_an_array(dtype: DType, value: object, expected: Any) -> None:
    found = as_array(spec(dtype), value, "model 'm'")
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (DType.I64, [1.5], "model 'm': input 'x', list: its elements are float64, expected i64"),
        (DType.U8, [256], "a number leaves the range of u8"),
        (DType.U8, -1, "a number leaves the range of u8"),
        (DType.BOOL, [1], "its elements are int64, expected bool"),
        (DType.F32, ["1"], "its elements are <U1, expected f32"),
        (DType.F32, [[1], [2, 3]], r"is a list, of which NumPy cannot make an array for x: f32"),
        (DType.F32, [1j], "its elements are complex128"),
        (DType.F32, Elsewhere(), "is a Elsewhere, of which NumPy .*Use Tensor.cpu"),
        (DType.F32, b"12", "is a bytes, expected a NumPy array"),
        (DType.F32, None, "is a NoneType, expected a NumPy array"),
    ],
)
def test_what_has_none_or_others_is_refused(dtype: DType, value: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        as_array(spec(dtype), value, "model 'm'")
