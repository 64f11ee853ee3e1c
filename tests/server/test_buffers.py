from __future__ import annotations

import mmap

import numpy as np
import pytest

from tuili.server.buffers import BufferPool


def address(view: memoryview) -> int:
    return np.frombuffer(view, np.uint8).ctypes.data


def test_a_block_returns_when_nobody_reads_it():
    pool = BufferPool()
    first = pool.take(100_000)
    tensor = np.frombuffer(first, np.float32)[5:]
    start = address(first)
    del first
    assert address(pool.take(100_000)) != start
    del tensor
    assert address(pool.take(100_000)) == start


@pytest.mark.parametrize("lead", [0, 1, 63, 64, 165])
def test_the_tensor_is_aligned(lead: int):
    pool = BufferPool()
    for _ in range(3):
        view = pool.take(70_000, lead)
        assert len(view) == 70_000
        assert (address(view) + lead) % 64 == 0


def test_what_is_kept_is_bounded():
    pool = BufferPool(max_idle_bytes=1 << 20)
    held = [pool.take(200_000 + 8192 * index) for index in range(20)]
    assert pool._bytes <= 1 << 20
    del held
    for size in (300_000, 900_000, 100, 2 << 20):
        pool.take(size)
        assert pool._bytes == sum(block.nbytes for block in pool._blocks) <= 1 << 20


def test_a_small_body_does_not_take_a_large_block():
    pool = BufferPool()
    large = address(pool.take(1 << 20))
    assert address(pool.take(1000)) != large


@pytest.mark.parametrize(("size", "apart"), [(1 << 20, False), (16 << 20, True)])
def test_large_blocks_are_no_part_of_the_heap(size: int, apart: bool):
    view = BufferPool().take(size)
    assert (len(view), view.readonly) == (size, False)
    block = view.obj
    assert isinstance(block, np.ndarray)
    assert isinstance(getattr(block.base, "obj", block.base), mmap.mmap) is apart
