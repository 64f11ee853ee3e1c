"""SequenceQueue: requests of a stateful model, in order within their sequence.

Theory of operation
- A sequence is all requests with one correlation id between START and END. Its requests run one
  after the other; requests of different sequences join in batches.
- A sequence occupies one of a bounded number of slots; those that find none wait in the backlog
  until another sequence ends or was idle for too long.
- Only requests that may run now are in the inner request queue, so that delays, preferred sizes and
  timeouts work as for any model.
- When a request leaves, it gets the model's control inputs and the sequence's state tensors; when
  it is finished, the new state is kept and taken out of its answer. So state lives in the server,
  and any instance may run any request.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import Array
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.queue import Left, RequestQueue, Waiting

SequenceId = int | str
ControlKind = Literal["start", "ready", "end", "id"]


@dataclass(frozen=True, slots=True)
class Control:
    """An input that tells the model where in its sequence a request is."""

    name: str
    kind: ControlKind
    dtype: np.dtype
    false_true: tuple[float, float] = (0, 1)


@dataclass(frozen=True, slots=True)
class StateTensor:
    """A state that goes from an output to the next request's input; `initial` has the batch dim."""

    input: str
    output: str
    initial: Array


@dataclass(frozen=True, slots=True)
class SequencePolicy:
    """What a stateful model asks for."""

    batch: BatchPolicy
    slots: int = 1
    idle_s: float = 1.0
    controls: tuple[Control, ...] = ()
    states: tuple[StateTensor, ...] = ()


class SequenceItem(Waiting, Protocol):
    """A request of a sequence."""

    arrays: dict[str, Array]
    sequence: SequenceId
    starts: bool
    ends: bool


Item = TypeVar("Item", bound=SequenceItem)


@dataclass(slots=True)
class _Sequence(Generic[Item]):
    """One sequence: its state, its request that competes or runs, and those behind it."""

    id: SequenceId
    states: dict[str, Array]
    used: float
    has_slot: bool = False
    current: Item | None = None  # in the inner queue, or running
    waiting: deque[Item] = field(default_factory=deque)
    ended: bool = False
    successor: _Sequence[Item] | None = None  # the next life of the same id


class SequenceQueue(Generic[Item]):
    """Waiting requests of one stateful model version."""

    def __init__(self, model: str, policy: SequencePolicy) -> None:
        self._model = model
        self._sequences_policy = policy
        self.policy = policy.batch
        self._inner: RequestQueue[Item] = RequestQueue(policy.batch)
        # By last use, so that the idle ones come first.
        self._sequences: OrderedDict[SequenceId, _Sequence[Item]] = OrderedDict()
        # A restarted sequence's former life may still run.
        self._of_item: dict[int, _Sequence[Item]] = {}
        self._backlog: deque[_Sequence[Item]] = deque()
        self._slots = policy.slots
        self._behind = 0  # requests that wait for one of their own sequence, or for a slot
        self._expiries: list[tuple[float, int, Item]] = []
        self._pushed = 0

    @property
    def left(self) -> Left:
        """Why the last batch left."""
        return self._inner.left

    def __len__(self) -> int:
        return len(self._inner) + self._behind

    def ahead(self, level: int) -> int:
        """How many requests leave before one that comes now; levels do not matter here."""
        del level
        return len(self)

    def push(self, item: Item, timeout_s: float = 0.0) -> None:
        """Let a request wait for its turn in its sequence."""
        if item.sequence in (0, ""):
            raise InvalidArgument(
                f"inference request to model '{self._model}' must specify a non-zero or non-empty "
                "correlation ID"
            )
        if item.rows != 1:
            raise InvalidArgument(
                f"inference request to model '{self._model}' must specify batch-size 1 due to "
                "requirements of sequence batcher"
            )
        sequence = self._sequences.get(item.sequence)
        if item.starts:
            sequence = self._begin(item)
        elif sequence is None or sequence.ended:
            raise InvalidArgument(
                f"inference request for sequence {item.sequence} to model '{self._model}' must "
                "specify the START flag on the first request of the sequence"
            )
        sequence.used = item.arrived
        sequence.ended = item.ends
        self._sequences.move_to_end(item.sequence)
        self._of_item[id(item)] = sequence
        sequence.waiting.append(item)
        self._behind += 1
        if timeout_s:
            moment = item.arrived + timeout_s
            item.expires = min(item.expires, moment) if item.expires else moment
        if item.expires:
            # The inner queue sees to the time of those that compete, this one to the others'.
            self._pushed += 1
            heapq.heappush(self._expiries, (item.expires, self._pushed, item))
        self._advance(sequence)

    def take(self, now: float) -> list[Item]:
        """The next batch, each request with its controls and state."""
        batch = self._inner.take(now)
        for item in batch:
            sequence = self._of_item[id(item)]
            self._prepare(item, sequence)
        return batch

    def finished(
        self, item: Item, outputs: Mapping[str, Array] | None, now: float
    ) -> Mapping[str, Array] | None:
        """A request is done (or, without outputs, failed); returns its outputs without states."""
        sequence = self._of_item.pop(id(item), None)
        if sequence is None:
            return outputs
        sequence.current = None
        sequence.used = max(sequence.used, now)
        if outputs is not None and self._sequences_policy.states:
            kept = {state.output: state.input for state in self._sequences_policy.states}
            for name, array in outputs.items():
                if name in kept:
                    sequence.states[kept[name]] = array.copy()
            outputs = {name: array for name, array in outputs.items() if name not in kept}
        self._advance(sequence)
        return outputs

    def readmit(self, item: Item) -> None:
        """Let a request that had left run once more."""
        self._inner.readmit(item)

    def remove(self, item: Item) -> bool:
        """Take a waiting request out; false when it is not waiting any more."""
        sequence = self._of_item.get(id(item))
        if sequence is None:
            return False
        if sequence.current is not item:
            sequence.waiting.remove(item)
            self._behind -= 1
        elif self._inner.remove(item):
            sequence.current = None
        else:
            return False
        del self._of_item[id(item)]
        self._advance(sequence)
        return True

    def expire(self, now: float) -> list[Item]:
        """Requests whose time ran out; and end the sequences that were idle for too long."""
        expired = self._inner.expire(now)
        for item in expired:
            sequence = self._of_item.pop(id(item))
            sequence.current = None
            self._advance(sequence)
        while self._expiries and self._expiries[0][0] <= now:
            item = heapq.heappop(self._expiries)[2]
            sequence = self._of_item.get(id(item))
            if sequence is not None and sequence.current is not item and self.remove(item):
                expired.append(item)
        for sequence in list(self._sequences.values()):
            if sequence.used + self._sequences_policy.idle_s > now:
                break
            if sequence.current is None and not sequence.waiting:
                self._end(sequence)
        return expired

    def wake_at(self) -> float | None:
        """When to ask again though nothing arrives."""
        moments = [self._inner.wake_at()]
        if self._behind and self._expiries:
            moments.append(self._expiries[0][0])
        if self._sequences:
            oldest = next(iter(self._sequences.values()))
            moments.append(oldest.used + self._sequences_policy.idle_s)
        return min((moment for moment in moments if moment is not None), default=None)

    def drain(self) -> list[Item]:
        """Everything that waits, taken out."""
        items = self._inner.drain()
        for sequence in self._lives():
            items += sequence.waiting
            sequence.waiting.clear()
        self._behind = 0
        for item in items:
            sequence = self._of_item.pop(id(item))
            if sequence.current is item:
                sequence.current = None
        return items

    def _lives(self) -> Sequence[_Sequence[Item]]:
        found = {id(s): s for s in (*self._sequences.values(), *self._of_item.values())}
        return list(found.values())

    def _begin(self, item: Item) -> _Sequence[Item]:
        """A new sequence; one of the same id that still goes on ends first, with what it has."""
        former = self._sequences.pop(item.sequence, None)
        states = {state.input: state.initial for state in self._sequences_policy.states}
        sequence: _Sequence[Item] = _Sequence(item.sequence, states, item.arrived)
        self._sequences[item.sequence] = sequence
        if former is None:
            self._backlog.append(sequence)
            self._admit()
        else:
            former.ended, former.successor = True, sequence
            self._advance(former)
        return sequence

    def _admit(self) -> None:
        while self._slots and self._backlog:
            sequence = self._backlog.popleft()
            sequence.has_slot = True
            self._slots -= 1
            self._advance(sequence)

    def _advance(self, sequence: _Sequence[Item]) -> None:
        """Let the sequence's next request compete, or end the sequence when it was the last."""
        if sequence.current is not None:
            return
        if sequence.waiting:
            if sequence.has_slot:
                sequence.current = sequence.waiting.popleft()
                self._behind -= 1
                self._inner.push(sequence.current)
        elif sequence.ended:
            self._end(sequence)

    def _end(self, sequence: _Sequence[Item]) -> None:
        if self._sequences.get(sequence.id) is sequence:
            del self._sequences[sequence.id]
        if sequence.has_slot:
            sequence.has_slot = False
            self._slots += 1
        elif sequence in self._backlog:
            self._backlog.remove(sequence)
        if sequence.successor is not None:
            self._backlog.append(sequence.successor)
            sequence.successor = None
        self._admit()

    def _prepare(self, item: Item, sequence: _Sequence[Item]) -> None:
        """Add the control inputs and the states to a request's arrays."""
        batched = self.policy.max_rows > 0
        shape = (1, 1) if batched else (1,)
        flags = {"start": item.starts, "ready": True, "end": item.ends}
        for control in self._sequences_policy.controls:
            if control.kind != "id":
                value: object = control.false_true[bool(flags[control.kind])]
            else:
                value = _told_id(item.sequence, control.dtype)
            array = np.empty(shape, control.dtype)
            array[...] = value
            item.arrays[control.name] = array
        item.arrays.update(sequence.states)


def _told_id(sequence: SequenceId, dtype: np.dtype) -> object:
    """A sequence's id as its model wants it; text for a model that wants a number becomes one."""
    if dtype.hasobject:
        return str(sequence).encode()
    if isinstance(sequence, int):
        return sequence & ((1 << 8 * dtype.itemsize) - 1) if dtype.kind == "u" else sequence
    digest = hashlib.blake2b(sequence.encode(), digest_size=8).digest()
    # Of 31 bits, so that every number type that a control may have can hold it.
    return int.from_bytes(digest, "little") % ((1 << 31) - 1) + 1
