"""Shapes that a caller asks for."""

from typing import Any

import numpy as np
import pytest

from tuili.errors import InvalidArgument
from tuili.passes.asked_shapes import checked_shapes


def test_numbers_of_any_kind_and_words_are_dims() -> None:
    asked = {"x": np.array([1, 3]), "y": ("n", np.int64(2)), "z": []}
    assert checked_shapes(asked) == {"x": (1, 3), "y": ("n", 2), "z": ()}
    assert checked_shapes(None) == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([(1, 3)], "shapes is a list, expected dims by the name of an input"),
        ({"x": "1x3"}, "input 'x': the shape is '1x3', expected a number for each dim"),
        ({"x": 3}, "input 'x': the shape is 3, expected"),
        ({"x": None}, "input 'x': the shape is None, expected"),
        ({"x": (1, None)}, "input 'x': None is no dim .* a word to leave it open"),
        ({"x": (1.5, 3)}, "input 'x': 1.5 is no dim"),
        ({"x": (-1, 3)}, "input 'x': -1 is no dim within 0 to"),
        ({"x": (2**70, 3)}, "is no dim within 0 to"),
        ({"x": (True, 3)}, "input 'x': True is no dim"),
    ],
)
def test_anything_else_is_refused_with_what_is_expected(asked: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        checked_shapes(asked)
