"""Whole Winograd is used only where its result is exact."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.codegen.kernels.quantized.winograd_transforms import WHOLE_F2, WHOLE_F4, WholeWinograd


@pytest.mark.parametrize("winograd", [WHOLE_F2, WHOLE_F4], ids=["F(2, 3)", "F(4, 3)"])
def test_filters_whose_sums_leave_the_range_are_refused(winograd: WholeWinograd) -> None:
    most = 2 ** (31 - winograd.shift) // (255 * 9 * 127)
    assert winograd.transform_filters(np.full((1, most, 3, 3), 127, np.int8)) is not None
    assert winograd.transform_filters(np.full((1, most + 1, 3, 3), 127, np.int8)) is None


@pytest.mark.parametrize(
    ("codes", "share"),
    [((-255, 255), 1), ((0, 255), 2), ((-128, 127), 2), ((-100, 155), 255 / 155)],
)
def test_filters_of_both_signs_have_the_room_that_the_zero_point_leaves(
    codes: tuple[int, int], share: float
) -> None:
    most = int(2 ** (31 - WHOLE_F4.shift) // (255 * 9 * 100) * share) // 2 * 2
    signs = np.tile(np.array([100, -100], np.int8), most // 2)[None, :, None, None]
    assert WHOLE_F4.transform_filters(signs * np.ones((1, 1, 3, 3), np.int8), codes) is not None


def test_filters_that_leave_16_bits_are_refused() -> None:
    wide = np.full((1, 1, 3, 3), 255, np.int16)
    assert WHOLE_F4.transform_filters(wide) is None
    assert WHOLE_F2.transform_filters(wide) is not None


@pytest.mark.parametrize("winograd", [WHOLE_F2, WHOLE_F4], ids=["F(2, 3)", "F(4, 3)"])
def test_the_inverse_and_the_shift_undo_the_scale_of_the_filters(winograd: WholeWinograd) -> None:
    rows = np.array(winograd.filter_rows)
    scale = 2 * rows[-1, 2] if winograd is WHOLE_F4 else rows[-1, 2]  # see the output's text
    assert scale**2 * winograd.inverse % 2**32 == 2**winograd.shift
