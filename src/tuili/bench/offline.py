"""Offline: as many callers as there are threads, each asking again when it has its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from tuili.bench.engines import Answer, Loaded
from tuili.errors import Unsupported

LEAST_S = 0.25  # of a round: every caller has many answers, or at least one


def callers(loaded: Loaded, count: int) -> list[Answer]:
    """The calls of so many threads; raises Unsupported for an engine that answers one at a time."""
    if count > 1 and loaded.another is None:
        raise Unsupported(f"{loaded.engine} answers one at a time, offline asks {count} at once")
    another = loaded.another
    return [loaded.answer, *(another() for _ in range(count - 1) if another is not None)]


def seconds_an_answer(calls: Sequence[Callable[[], object]], least_s: float = LEAST_S) -> float:
    """How long an answer takes where all `calls` ask at once: the time over the answers."""
    counts = [0] * len(calls)
    start = threading.Barrier(len(calls) + 1)

    def ask(at: int) -> None:
        start.wait()
        until = time.perf_counter() + least_s
        while True:
            calls[at]()
            counts[at] += 1
            if time.perf_counter() >= until:
                return

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / sum(counts)
