"""HostSlot: one place for a batch in a model host; an instance to the batcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

import numpy as np

from tuili.backends import host_calls
from tuili.backends.host_messages import (
    Answer,
    Done,
    DoneEach,
    Ended,
    Failed,
    One,
    Part,
    Run,
    SlotMemory,
    Tensor,
)
from tuili.backends.requests import KINDS, Answered
from tuili.errors import InternalError, TuiliError
from tuili.server.execution.express import join_raw
from tuili.server.execution.pending import Pending, Process
from tuili.server.execution.running import InstanceDied, Outcome
from tuili.server.execution.streams import OpenBatch
from tuili.server.execution.telling import told_of
from tuili.server.protocol.messages import Array


class SlotOwner(Process, Protocol):
    """What a slot needs of its host."""

    @property
    def name(self) -> str: ...
    @property
    def run_timeout_s(self) -> float: ...
    @property
    def load_timeout_s(self) -> float: ...
    @property
    def by_request(self) -> bool: ...
    @property
    def is_running(self) -> bool: ...
    def tell_cancelled(self, slot: int, at: int) -> None: ...
    def send(self, order: Run) -> None: ...
    def receive(self, timeout_s: float) -> Answer: ...
    def hung(self) -> None: ...
    def runs(self, slot: int) -> bool: ...
    def release(self, slot: HostSlot) -> None: ...


class HostSlot:
    """One place for a batch in a host; an instance to the batcher."""

    model: None = None
    threads = 0

    def __init__(self, host: SlotOwner, index: int) -> None:
        self.available = True
        self._host = host
        self._index = index
        self.memory = SlotMemory(-1)
        self._done: Callable[[Outcome], None] | None = None
        # Requests that are answered any number of times, by the number that their answers have:
        # their batch, and their place in it.
        self._streams: dict[int, tuple[OpenBatch, int]] = {}
        self._numbers = count(1)
        self._taking: OpenBatch | None = None  # the one whose run is in the slot
        self._batch: Sequence[Pending] = ()
        self._started_ns = 0
        self._joined_ns = 0
        self._begun_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch is in it, or answers of an earlier one may come."""
        return self._done is not None or bool(self._streams)

    @property
    def behind(self) -> bool:
        """Whether the child has another slot's run to do first."""
        return self._host.is_running

    @property
    def behind_caller(self) -> bool:
        """Whether that run waits for other models, maybe for the one that would come behind it."""
        return self._host.calls_others

    @property
    def process(self) -> Process:
        """Its host."""
        return self._host

    def attach(self, memory: SlotMemory) -> None:
        """Use the memory that a new child shares."""
        self.memory = memory

    def run_beside(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Pending],
        done: Callable[[Outcome], None],
    ) -> None:
        """Write the batch into the slot and ring; `done` is called on the loop."""
        self._started_ns, self._begun_ns = time.monotonic_ns(), 0
        try:
            tensors = self.memory.write(_parts(batch))
            order = Run(self._index, self.memory.capacity, tensors)
            if batch[0].part is not None:
                order.streams = [next(self._numbers) for _ in batch]
                order.whole = bool(batch[0].sequence)
            if self._host.by_request:
                order.told = [told_of(item) for item in batch]
                self._batch = () if order.streams else batch
            self._host.send(order)
        except InstanceDied as error:
            loop.call_soon(done, self._failed(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this batch only
            wrapped = InternalError(f"{self._host.name}: {error}")
            outcome = Outcome(
                self._started_ns, self._started_ns, time.monotonic_ns(), error=wrapped
            )
            loop.call_soon(done, outcome)
            return
        self._joined_ns = time.monotonic_ns()
        self._done = done
        if order.streams:
            self._taking = opened = OpenBatch(batch, done)
            self._streams |= {number: (opened, at) for at, number in enumerate(order.streams)}
        if self._host.runs(self._index):
            self.run_begins()

    def run_begins(self) -> None:
        """The child came to this slot: from now on it may be called hung."""
        self._begun_ns = time.monotonic_ns()
        if self._host.run_timeout_s:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._host.run_timeout_s, self._host.hung)

    def cancelled(self, item: Pending) -> None:
        """Nobody waits for a request any more: tell the child if it is here."""
        for at, each in enumerate(self._batch):
            if each is item and self._done is not None:
                self._host.tell_cancelled(self._index, at)
        for number, (opened, at) in list(self._streams.items()):
            if opened.find(item) == at:
                self._host.tell_cancelled(self._index, number)
                opened.forget(at)
        self._settle()

    def take_part(self, answer: Part, descriptors: Sequence[int]) -> None:
        """Hand one of many answers on."""
        if answer.stream not in self._streams:
            return  # Nobody waited for it any more.
        opened, at = self._streams[answer.stream]
        one = answer.answer
        if one.kind:
            answered = Answered({}, one.parameters, KINDS[one.kind](one.text))
        else:
            try:
                arrays = host_calls.unpack(
                    one.tensors, answer.capacity, list(descriptors), answer.enclosed
                )
                answered = Answered(arrays, one.parameters)
            except InternalError as error:
                answered = Answered({}, one.parameters, error)
        if not opened.take(at, answered, answer.final) and not answer.final:
            self._host.tell_cancelled(self._index, answer.stream)
            opened.forget(at)
        self._settle()

    def end_stream(self, answer: Ended) -> None:
        """No more answers with this number come."""
        if answer.stream in self._streams:
            opened, at = self._streams[answer.stream]
            opened.end(at, KINDS[answer.kind](answer.text) if answer.kind else None)
            self._settle()

    def _settle(self) -> None:
        """Let go of what is over."""
        if any(opened.over for opened, _ in self._streams.values()):
            self._streams = {n: each for n, each in self._streams.items() if not each[0].over}

    def lost(self, error: InstanceDied) -> None:
        """The child is gone, and what it had of requests that are answered many times with it."""
        streams, self._streams = list(self._streams.values()), {}
        for opened, _ in streams:
            opened.release(error)

    def finish(self, answer: Done | DoneEach | Failed | InstanceDied) -> None:
        """Hand the outcome to whoever waits."""
        done, self._done = self._done, None
        taking, self._taking = self._taking, None
        self._batch = ()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if done is None:
            return
        if taking is not None:
            self._taken(taking, answer)
        elif isinstance(answer, Done | DoneEach):
            done(self._outcome(answer))
        elif isinstance(answer, Failed):
            done(self._failed(_error_of(answer)))
        else:
            done(self._failed(answer))

    def _taken(self, opened: OpenBatch, answer: Done | DoneEach | Failed | InstanceDied) -> None:
        """The child took requests that are answered many times, or could not."""
        if isinstance(answer, Failed | InstanceDied):
            opened.release(_error_of(answer) if isinstance(answer, Failed) else answer)
        else:
            opened.release()
        self._settle()

    def close(self) -> None:
        """The last slot that closes ends the host."""
        self._host.release(self)

    def run_now(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run and wait: for warm-up, before the loop takes over."""
        tensors = self.memory.write({name: [array] for name, array in inputs.items()})
        self._host.send(Run(self._index, self.memory.capacity, tensors))
        answer = self._host.receive(self._host.load_timeout_s)
        if isinstance(answer, Failed):
            raise _error_of(answer)
        if not isinstance(answer, Done):
            raise InternalError(f"{self._host.name}: expected outputs, got {answer}")
        return self._outputs(answer.tensors, answer.capacity)

    def _outputs(self, tensors: Sequence[Tensor], capacity: int) -> dict[str, Array]:
        """Copies of the outputs: the slot is used again at once."""
        self.memory.remap(capacity)
        found: dict[str, Array] = {}
        for tensor in tensors:
            array = self.memory.read(tensor)
            found[tensor.name] = array if array.dtype == object else np.array(array)
        return found

    def _one(self, one: One, capacity: int) -> Answered:
        if one.kind:
            return Answered({}, one.parameters, KINDS[one.kind](one.text))
        return Answered(self._outputs(one.tensors, capacity), one.parameters)

    def _outcome(self, answer: Done | DoneEach) -> Outcome:
        """The run counts as long as the child says; the way there and back is not the model's.

        What was written while another slot's run lasted waited for that, as it would in the queue.
        """
        behind_ns = max(self._begun_ns - self._joined_ns, 0)
        joined_ns = self._joined_ns + behind_ns
        done_ns = joined_ns + answer.run_ns
        found = Outcome(self._started_ns + behind_ns, joined_ns, done_ns, {})
        if isinstance(answer, Done):
            found.outputs = self._outputs(answer.tensors, answer.capacity)
        else:
            found.answers = [self._one(one, answer.capacity) for one in answer.answers]
        return found

    def _failed(self, error: TuiliError) -> Outcome:
        return Outcome(self._started_ns, self._joined_ns, time.monotonic_ns(), error=error)


def _parts(batch: Sequence[Pending]) -> dict[str, list[Array]]:
    """Of each input, the arrays that lie one after the other in a batch."""
    joined = join_raw(batch) if len(batch) > 1 else None
    if joined is not None:
        return {name: [array] for name, array in joined.items()}
    arrays = [item.materialized() for item in batch]
    return {name: [each[name] for each in arrays] for name in arrays[0]}


def _error_of(answer: Failed) -> TuiliError:
    return KINDS[answer.kind](answer.text)
