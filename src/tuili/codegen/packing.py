"""Constants in the layouts of kernels: channels in blocks of one vector."""

from __future__ import annotations

import numpy as np

from tuili.tensors import Array


def pad_to_multiple(vector: Array, multiple: int) -> Array:
    """A vector with zeros appended up to a multiple of `multiple`."""
    padded = np.zeros(-(-vector.size // multiple) * multiple, vector.dtype)
    padded[: vector.size] = vector.reshape(-1)
    return padded


def block_channels(array: Array, block: int) -> Array:
    """[N, C, ...] as [N, ceil(C / block), ..., block], zero padded."""
    batch, channels, *space = array.shape
    groups = -(-channels // block)
    padded = np.zeros((batch, groups * block, *space), array.dtype)
    padded[:, :channels] = array
    split = padded.reshape(batch, groups, block, *space)
    return np.ascontiguousarray(np.moveaxis(split, 2, -1))
