"""Made-up inputs follow the specs, and conflicts are refused by name."""

import numpy as np
import pytest

from tuili.bench.feeds import bound_symbols, random_feeds
from tuili.errors import InvalidArgument
from tuili.tensors import DType, Sym, TensorSpec

IMAGE = TensorSpec("image", DType.F32, (Sym("N"), 3, Sym("H"), Sym("W")))
IDS = TensorSpec("ids", DType.I64, (Sym("N"), 5))


def test_free_dims_are_one():
    feeds = random_feeds([IMAGE, IDS])
    assert feeds["image"].shape == (1, 3, 1, 1)
    assert feeds["ids"].shape == (1, 5)
    assert feeds["ids"].dtype == np.int64


def test_shapes_bind_symbols_of_other_inputs():
    assert random_feeds([IMAGE, IDS], {"image": (2, 3, 4, 5)})["ids"].shape == (2, 5)


def test_dims_that_follow_from_others_are_computed():
    spec = TensorSpec("x", DType.F32, (Sym("N") * 2,))
    assert random_feeds([IDS, spec], {"ids": (3, 5)})["x"].shape == (6,)


def test_the_same_seed_gives_the_same_values():
    one, two = (random_feeds([IMAGE], seed=4)["image"] for _ in range(2))
    assert (one == two).all()


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.BOOL, DType.U8])
def test_values_have_the_type_of_the_spec(dtype):
    assert random_feeds([TensorSpec("x", dtype, (2,))])["x"].dtype == dtype.numpy


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"imege": (1, 3, 2, 2)}, "no input 'imege'. Did you mean 'image'"),
        ({"image": (1, 3)}, r"image: f32\[N, 3, H, W\] has 4 dims; \[1, 3\] was given"),
        ({"image": (1, 4, 2, 2)}, r"\[1, 4, 2, 2\] was given; axis 1 must be 3"),
        ({"image": (1, 3, 2, 2), "ids": (2, 5)}, r"\[2, 5\] was given; axis 0 must be N = 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(InvalidArgument, match=message):
        bound_symbols([IMAGE, IDS], shapes)


def test_text_inputs_need_a_file():
    with pytest.raises(InvalidArgument, match="cannot make up values of type str"):
        random_feeds([TensorSpec("x", DType.STR, (1,))])
