"""Shapes on the command line."""

import pytest

from tuili.cli.shapes import concrete_shapes, parse_shapes
from tuili.errors import InvalidArgument


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("x=1x3x224x224", {"x": (1, 3, 224, 224)}),
        ("ids=batchx128", {"ids": ("batch", 128)}),
        ("scalar=", {"scalar": ()}),
        ("a:0/b=2", {"a:0/b": (2,)}),
        ("odd=name=7", {"odd=name": (7,)}),
        ("x=*", {"x": ("*",)}),
    ],
)
def test_shapes_are_parsed(option, expected):
    assert parse_shapes([option]) == expected


def test_no_option_is_no_shape():
    assert parse_shapes(None) == {}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("1x3x224", "expected NAME=DIMS"),
        ("=1x3", "expected NAME=DIMS"),
        ("x=1x-3", "'-3' is neither a number nor a word"),
        ("x=1x*", "'\\*' is neither a number nor a word"),
        ("x=1xx3", "'' is neither a number nor a word"),
    ],
)
def test_other_texts_are_refused(option, message):
    with pytest.raises(InvalidArgument, match=message):
        parse_shapes([option])


def test_where_numbers_are_needed_words_are_refused():
    with pytest.raises(InvalidArgument, match="--shape x: here every dim must be a number"):
        concrete_shapes(["x=Nx3"])
    assert concrete_shapes(["x=2x3"]) == {"x": (2, 3)}
