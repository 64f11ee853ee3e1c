"""The memory of a slot between the server and a model host."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tuili.backends.host_messages import SlotMemory


@pytest.mark.parametrize("shape", [(1, 0), (0, 3), (2, 3)])
def test_the_first_tensor_of_a_slot_may_be_empty(shape: tuple[int, ...]) -> None:
    descriptor = os.memfd_create("slot")
    try:
        memory = SlotMemory(descriptor)
        array = np.ones(shape, np.float32)
        (tensor,) = memory.write({"x": [array]})
        np.testing.assert_array_equal(memory.view(tensor), array)
    finally:
        os.close(descriptor)
