"""The thread pool of the process: made by the first library that needs it, shared by all models."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from tuili.errors import Unavailable
from tuili.runtime.library import Library


@dataclass(slots=True)
class _Pool:
    address: int
    owner: Library
    threads: int


_lock = threading.Lock()
_pools: list[_Pool] = []  # none or one


def shared_pool(library: Library, threads: int) -> int:
    """The address of the pool, grown to `threads`; a model of one thread needs none (0)."""
    if threads <= 1:
        return 0
    with _lock:
        if not _pools:
            _pools.append(_create(library, threads))
        pool = _pools[0]
        if threads > pool.threads:
            pool.threads = pool.owner.resize_pool(pool.address, threads)
        return pool.address


def pool_threads() -> int:
    """The most threads that work at once in all models together; 1 without a pool."""
    return _pools[0].threads if _pools else 1


def _create(library: Library, threads: int) -> _Pool:
    address = library.create_pool(threads)
    if not address:
        raise Unavailable("no memory for the thread pool")
    library.keep()
    return _Pool(address, library, threads)
