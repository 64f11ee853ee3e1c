"""The classification extension."""

import numpy as np
import pytest

from tuili.errors import InvalidArgument
from tuili.server.protocol.classification import classify


@pytest.mark.parametrize(
    ("scores", "top", "labels", "batched", "found"),
    [
        ([0.5, 2.0, 1.0], 2, (), False, [b"2.000000:1", b"1.000000:2"]),
        ([[1, 3], [5, 4]], 1, ("cat", "dog"), True, [[b"3:1:dog"], [b"5:0:cat"]]),
        ([1.0, 1.0], 2, ("a",), False, [b"1.000000:0:a", b"1.000000:1"]),
        ([1.0], 5, (), False, [b"1.000000:0"]),
    ],
)
def test_the_greatest_values_with_index_and_label(scores, top, labels, batched, found):
    assert classify("y", np.array(scores), top, labels, batched).tolist() == found


@pytest.mark.parametrize(
    ("scores", "top", "text"),
    [
        (np.zeros(2), 0, "must be positive, got 0"),
        (np.zeros((1, 1_000_001), np.int8), 1, "classification output tensor too large"),
        (np.array([b"x"], object), 1, "due to unsupported type 'BYTES'"),
    ],
)
def test_what_cannot_be_classified(scores, top, text):
    with pytest.raises(InvalidArgument, match=text):
        classify("y", scores, top, (), False)
