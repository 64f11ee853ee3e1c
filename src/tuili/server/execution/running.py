"""Running batches: join the requests' arrays and run the model, on the loop or on a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np

from tuili.backends import Executable, stream
from tuili.backends.requests import Answered, SendTo, by_request
from tuili.errors import InternalError, TuiliError, Unavailable
from tuili.server.execution.express import join_raw
from tuili.server.execution.pending import Pending, Process
from tuili.server.execution.telling import told_of
from tuili.server.memory.region import apart
from tuili.server.protocol.messages import Array


class InstanceDied(Unavailable):
    """The instance that had a request is gone; the request itself may be fine.

    `started` is false for a request that waited behind the one that was being run: it is neither
    the cause nor half done.
    """

    def __init__(self, text: str, *, started: bool = True) -> None:
        super().__init__(text)
        self.started = started


class Outcome(msgspec.Struct, gc=False):
    """What came of a batch: outputs or an error, and the moments between its steps.

    Where requests are answered any number of times, `frees` tells that the runner may take the next
    batch, and `ends` that all answers were given to request `at` of this one (-1: to all); else
    both come at once.
    """

    started_ns: int
    joined_ns: int
    done_ns: int
    outputs: Mapping[str, Array] | None = None
    answers: Sequence[Answered] | None = None  # of a model that answers each request by itself
    error: TuiliError | None = None
    frees: bool = True
    ends: bool = True
    at: int = -1


def execute(model: Executable, batch: Sequence[Pending], threads: int = 0) -> Outcome:
    """Run one batch, on so many threads (0: all that the model has) where it can take several.

    Whatever goes wrong becomes an error of the tree.
    """
    started = joined = time.monotonic_ns()
    try:
        arrays = join(batch)
        if getattr(model, "decided_by_data", False):
            # A client that writes to its memory between counting and writing would be a crash.
            arrays = {name: apart(array) for name, array in arrays.items()}
        joined = time.monotonic_ns()
        requests = by_request(model)
        if requests is not None:
            told = [told_of(item) for item in batch]
            answers = requests.run_requests(arrays, told, lambda at: batch[at].unwanted)
            return Outcome(started, joined, time.monotonic_ns(), {}, answers)
        run_on = getattr(model, "run_on", None) if threads else None
        outputs = model.run(arrays) if run_on is None else run_on(arrays, threads)
    except TuiliError as error:
        return Outcome(started, joined, time.monotonic_ns(), error=error)
    except Exception as error:  # noqa: BLE001 - see below
        # A back end's own exception must cost these requests, never the server.
        wrapped = InternalError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return Outcome(started, joined, time.monotonic_ns(), error=wrapped)
    return Outcome(started, joined, time.monotonic_ns(), outputs)


def begin_streams(model: Executable, batch: Sequence[Pending], send: SendTo) -> None:
    """Let a model take requests; `send` gets their answers."""
    requests = by_request(model)
    if requests is not None:
        told = [told_of(item) for item in batch]
        requests.begin_streams(join(batch), told, lambda at: batch[at].unwanted, send)
        return
    (item,) = batch
    for outputs in stream(model, item.arrays):
        if item.unwanted:
            break
        send(0, Answered(outputs), False)
    send(0, None, True)


def join(batch: Sequence[Pending]) -> dict[str, Array]:
    """One array per input, the requests' rows one after the other."""
    if len(batch) == 1:
        return batch[0].materialized()
    joined = join_raw(batch)
    if joined is not None:
        return joined
    arrays = [item.materialized() for item in batch]
    return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}


class Runner(Protocol):
    """What runs batches, one at a time: an instance in this process, or a slot of a model host.

    `model` is None when nothing can run on the loop itself. `behind` tells that a batch would wait
    for another one in the same `process` (None: this one), `behind_caller` that this one asks other
    models. `threads` is what the next run may take of a model that can take several; 0: all.
    """

    available: bool
    threads: int

    @property
    def model(self) -> Executable | None: ...
    @property
    def behind(self) -> bool: ...
    @property
    def behind_caller(self) -> bool: ...
    @property
    def process(self) -> Process | None: ...
    def run_beside(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Pending],
        done: Callable[[Outcome], None],
    ) -> None: ...
    def cancelled(self, item: Pending) -> None: ...
    def close(self) -> None: ...
