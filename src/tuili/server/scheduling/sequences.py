"""SequenceQueue: requests of a stateful model, in order within their sequence.

Theory of operation
- A sequence is all requests with one correlation id between START and END. Its requests run one
  after the other; requests of different sequences join in batches.
- A sequence occupies one slot of one instance from its first request to its last, so the model may
  keep state of its own. Those that find no slot wait in the backlog until another sequence ends or
  was idle for too long. `sequence_slots.py` says what a slot is under either strategy.
- A START within a sequence begins it anew, in its slot, when what is before it is done. After an
  END the id may be used again at once: that sequence begins when the former one is done.
- When a request leaves, it gets the model's control inputs and the sequence's state tensors; when
  it is finished, the new state is kept and taken out of its answer.
- When a request that waits is cancelled, the first one of a sequence expires, or the instance that
  keeps the state dies, the whole sequence ends, and what waited in it is `dropped`.
- A sequence that ends in such a way, or with its model, is noted in `lost`: who goes on with it
  hears why he cannot.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Generic

from tuili.errors import Cancelled, DeadlineExceeded, InvalidArgument, TuiliError, Unavailable
from tuili.server.protocol.messages import Array
from tuili.server.scheduling.controls import Control, ControlKind, SequenceId, StateTensor
from tuili.server.scheduling.lost import Lost
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.queue import Left
from tuili.server.scheduling.sequence_slots import Direct, Item, Life, Oldest, Slots

_BLANK: Final[dict[ControlKind, bool]] = {"start": False, "ready": False, "end": False}


@dataclass(frozen=True, slots=True)
class SequencePolicy:
    """What a stateful model asks for; `slots` are those of each instance."""

    batch: BatchPolicy
    slots: int = 1
    instances: int = 1
    direct: bool = False
    utilization: float = 0.0  # of the slots, for which a direct batch waits
    idle_s: float = 1.0
    controls: tuple[Control, ...] = ()
    states: tuple[StateTensor, ...] = ()

    def one_by_one(self) -> SequencePolicy:
        """The same with batches of one request, for a model whose answers come one by one."""
        return replace(self, batch=replace(self.batch, merge=False), direct=False)


class SequenceQueue(Generic[Item]):
    """Waiting requests of one stateful model version."""

    def __init__(
        self,
        model: str,
        policy: SequencePolicy,
        competes: Callable[[Item], None] = lambda item: None,
        lost: Lost | None = None,
    ) -> None:
        """`competes` is told of each request that has come to the front of its sequence."""
        self._model = model
        self._policy = policy
        self._lost = Lost() if lost is None else lost
        self._competes = competes
        self.policy = policy.batch
        # Whether the server holds all state, so that any instance could go on with a sequence.
        self.keeps_state = bool(policy.states)
        self.left = Left.IDLE
        self._instances = [self._new_slots() for _ in range(policy.instances)]
        self._free = [(slot, at) for slot in range(policy.slots) for at in range(policy.instances)]
        # Those that may go on, by last use, so that the idle ones come first.
        self._open: OrderedDict[SequenceId, Life[Item]] = OrderedDict()
        # The last one of each id, as long as anything of it waits or runs.
        self._latest: dict[SequenceId, Life[Item]] = {}
        self._of_item: dict[int, Life[Item]] = {}
        self._backlog: deque[Life[Item]] = deque()
        self._size = 0
        self._expiries: list[tuple[float, int, Item]] = []
        self._pushed = 0
        self._dropped: list[tuple[Item, TuiliError]] = []

    def _new_slots(self) -> Slots[Item]:
        policy = self._policy
        if not policy.direct:
            return Oldest[Item](policy.batch, self._competes)
        return Direct[Item](
            policy.batch, policy.slots, policy.utilization, keep_rows=not policy.states
        )

    def __len__(self) -> int:
        return self._size

    def ahead(self, level: int) -> int:
        """How many requests leave before one that comes now; levels do not matter here."""
        del level
        return self._size

    def gathered(self) -> tuple[int, int]:
        """How many requests wait in slots, and how many in the backlog."""
        backlog = sum(len(life.waiting) for life in self._lives() if life.instance < 0)
        return self._size - backlog, backlog

    def keeps(self, sequence: SequenceId) -> bool:
        """Whether a sequence is open, so that its client may go on with it."""
        return sequence in self._open

    def open_sequences(self) -> int:
        """How many sequences are open."""
        return len(self._open)

    # ---- in
    def push(self, item: Item, timeout_s: float = 0.0) -> None:
        """Let a request wait for its turn in its sequence."""
        self._check(item)
        life = self._open.get(item.sequence)
        if life is None:
            life = self._begin(item)
        life.used = item.arrived
        life.ended = item.ends
        self._open.move_to_end(life.id)
        if item.ends:
            # The next one of this id is another sequence.
            del self._open[life.id]
        self._of_item[id(item)] = life
        life.waiting.append(item)
        self._size += 1
        if timeout_s and life.instance < 0:
            # As in Triton: it says how long a sequence waits for a slot.
            self._expect(item, item.arrived + timeout_s)
        if item.expires:
            # A queue below sees to the time of those that compete, this one to the others'.
            self._expect(item, item.expires)
        self._advance(life)

    def _expect(self, item: Item, moment: float) -> None:
        self._pushed += 1
        heapq.heappush(self._expiries, (moment, self._pushed, item))

    def _check(self, item: Item) -> None:
        if item.sequence in (0, ""):
            raise InvalidArgument(
                f"inference request to model '{self._model}' must specify a non-zero or non-empty "
                "correlation ID"
            )
        for control in self._policy.controls:
            why = control.refuses(item.sequence)
            if why:
                raise InvalidArgument(f"sequence batching {why.format(self._model)}")
        if item.rows != 1:
            raise InvalidArgument(
                f"inference request to model '{self._model}' must specify batch-size 1 due to "
                "requirements of sequence batcher"
            )
        if not item.starts and item.sequence not in self._open:
            why = self._lost.why(self._model, item.sequence)
            raise InvalidArgument(
                f"inference request for sequence {item.sequence} to model '{self._model}' must "
                "specify the START flag on the first request of the sequence"
                + (f"; this one was lost: {why}" if why else "")
            )

    def _begin(self, item: Item) -> Life[Item]:
        life: Life[Item] = Life(item.sequence, item.arrived)
        self._lost.forget(self._model, life.id)
        former = self._latest.get(life.id)
        self._open[life.id] = self._latest[life.id] = life
        if former is None:
            self._backlog.append(life)
            self._admit()
        else:
            life.former, former.successor = former, life
        return life

    # ---- out
    def take(self, now: float, instance: int = 0) -> list[Item]:
        """The next batch for an instance, each request with its controls and state."""
        slots = self._instances[instance]
        batch = slots.take(now)
        self.left = slots.left
        for item in batch:
            life = self._of_item.get(id(item))
            if life is not None:
                life.began = True
                self._size -= 1
            self._prepare(item, life)
        return batch

    def finished(
        self, item: Item, outputs: Mapping[str, Array] | None, now: float
    ) -> Mapping[str, Array] | None:
        """A request is done (or, without outputs, failed); returns its outputs without states."""
        life = self._of_item.pop(id(item), None)
        if life is None:
            return outputs
        life.current = None
        life.used = max(life.used, now)
        if self._open.get(life.id) is life:
            self._open.move_to_end(life.id)
        if outputs is not None and self._policy.states:
            hidden: set[str] = set()
            for state in self._policy.states:
                if state.output in outputs:
                    life.states[state.input] = outputs[state.output].copy()
                    if not state.shown:
                        hidden.add(state.output)
            outputs = {name: array for name, array in outputs.items() if name not in hidden}
        self._advance(life)
        return outputs

    def readmit(self, item: Item) -> None:
        """Let a request that had left run once more."""
        life = self._of_item[id(item)]
        self._size += 1
        self._instances[life.instance].again(life, item)

    def remove(self, item: Item) -> bool:
        """Take a waiting request out, and its sequence with it; false when it does not wait."""
        life = self._of_item.get(id(item))
        if life is None or not self._take_out(life, item):
            return False
        text = f"the request before it in sequence {life.id} was cancelled"
        self._drop(life, Cancelled(text))
        return True

    def expire(self, now: float) -> list[Item]:
        """Requests whose time ran out; and end the sequences that were idle for too long."""
        expired: list[Item] = []
        for slots in self._instances:
            for item in slots.expire(now):
                life = self._of_item.pop(id(item))
                life.current = None
                self._size -= 1
                expired.append(item)
                self._go_on_without(life, item)
        while self._expiries and self._expiries[0][0] <= now:
            item = heapq.heappop(self._expiries)[2]
            life = self._of_item.get(id(item))
            if life is None or life.current is item:
                continue
            if life.instance < 0:
                text = "timeout of the corresponding sequence has been expired"
                self._drop(life, Unavailable(text))
            elif 0 < item.expires <= now and self._take_out(life, item):
                expired.append(item)
                self._go_on_without(life, item)
        self._end_idle(now)
        return expired

    def lost(self, instance: int) -> None:
        """An instance died, and the state of its sequences with it, unless the server has it."""
        if self.keeps_state:
            return
        for life in list(self._lives()):
            if life.instance == instance and life.began:
                text = f"the instance that kept the state of sequence {life.id} died; start anew"
                self._drop(life, Unavailable(text))

    def close(self, why: str) -> None:
        """No more requests come: every sequence ends with the last that waits in it.

        Whose client would have gone on gives his slot up, so that nobody waits for it in vain.
        """
        for slots in self._instances:
            slots.hurry()
        for life in list(self._open.values()):
            self._lose(life, why)
            self._advance(life)

    def forsake(self, sequence: SequenceId, why: str = "") -> None:
        """A sequence is elsewhere now: here it ends with the last that waits in it.

        With `why` nothing in it is worth an answer any more.
        """
        life = self._open.pop(sequence, None)
        if life is not None:
            life.ended = True
            self._drop(life, Unavailable(why)) if why else self._advance(life)

    def dropped(self) -> list[tuple[Item, TuiliError]]:
        """Requests that left without being asked for, since the last call, with the reason."""
        found, self._dropped = self._dropped, []
        return found

    def drain(self) -> list[Item]:
        """Everything that waits, taken out."""
        items: list[Item] = []
        for life in list(self._lives()):
            current = life.current
            if current is not None and self._instances[life.instance].remove(life, current):
                items.append(current)
            items += life.waiting
            life.waiting.clear()
        self._size = 0
        for item in items:
            self._go_on_without(self._of_item.pop(id(item)), item)
        return items

    def wake_at(self, now: float) -> float | None:
        """When to ask again though nothing arrives; always after `now`."""
        moments = [each.wake_at(now) for each in self._instances]
        if self._size and self._expiries:
            moments.append(self._expiries[0][0])
        if self._open:
            oldest = next(iter(self._open.values()))
            moments.append(oldest.used + self._policy.idle_s)
        return min((moment for moment in moments if moment is not None), default=None)

    # ---- steps
    def _lives(self) -> Iterator[Life[Item]]:
        yield from dict.fromkeys(chain(self._open.values(), self._of_item.values()))

    def _take_out(self, life: Life[Item], item: Item) -> bool:
        if life.current is item:
            if not self._instances[life.instance].remove(life, item):
                return False
        else:
            life.waiting.remove(item)
        self._size -= 1
        del self._of_item[id(item)]
        return True

    def _go_on_without(self, life: Life[Item], item: Item) -> None:
        """A request of a sequence never ran; without its first one there is no sequence."""
        if item.starts:
            text = f"the first request of sequence {life.id} was not run in time"
            self._drop(life, DeadlineExceeded(text))
        else:
            self._advance(life)

    def _drop(self, life: Life[Item], error: TuiliError) -> None:
        """End a sequence; what waits in it is dropped, what runs is not its own any more."""
        current = life.current
        if current is not None and self._instances[life.instance].remove(life, current):
            life.waiting.appendleft(current)
        self._size -= len(life.waiting)
        for item in life.waiting:
            del self._of_item[id(item)]
            self._dropped.append((item, error))
        life.waiting.clear()
        self._lose(life, str(error))
        self._advance(life)

    def _lose(self, life: Life[Item], why: str) -> None:
        """Nobody may go on with a sequence; one that its client has ended is not lost."""
        life.ended = True
        if self._open.get(life.id) is life:
            del self._open[life.id]
            self._lost.note(self._model, life.id, why)

    def _end_idle(self, now: float) -> None:
        for life in list(self._open.values()):
            if life.used + self._policy.idle_s > now:
                break
            if life.current is None and not life.waiting:
                self._lose(life, f"it was idle for more than {self._policy.idle_s:g} s")
                self._advance(life)
            else:
                life.used = now
                self._open.move_to_end(life.id)

    def _admit(self) -> None:
        while self._free and self._backlog:
            life = self._backlog.popleft()
            # The lowest slots first, so that batches stay small.
            life.slot, life.instance = heapq.heappop(self._free)
            self._instances[life.instance].put(life)

    def _advance(self, life: Life[Item]) -> None:
        """Let the sequence's next request compete, or end the sequence when it was the last."""
        if life.current is None and not life.waiting and life.ended:
            self._end(life)
        elif life.instance >= 0:
            self._instances[life.instance].advance(life)

    def _end(self, life: Life[Item]) -> None:
        if life.former is not None:
            self._skip(life, life.former)
            return
        if self._latest.get(life.id) is life:
            del self._latest[life.id]
        if life.instance >= 0:
            self._instances[life.instance].free(life)
            heapq.heappush(self._free, (life.slot, life.instance))
            life.instance = -1
        elif life in self._backlog:
            self._backlog.remove(life)
        if life.successor is not None:
            self._backlog.append(life.successor)
            life.successor.former = life.successor = None
        self._admit()

    def _skip(self, life: Life[Item], former: Life[Item]) -> None:
        """A sequence ends before its turn: the one after it waits for the one before it."""
        former.successor, life.former = life.successor, None
        if life.successor is not None:
            life.successor.former, life.successor = former, None
        elif self._latest.get(life.id) is life:
            self._latest[life.id] = former

    def _prepare(self, item: Item, life: Life[Item] | None) -> None:
        """Add the control inputs and the states to a request's arrays; no life: a blank row."""
        shape = (1, 1) if self.policy.max_rows > 0 else (1,)
        flags: Mapping[ControlKind, bool] = _BLANK
        sequence: SequenceId = 0
        if life is not None:
            flags = {"start": item.starts, "ready": True, "end": item.ends}
            sequence = life.id
            if item.starts:
                life.states = {state.input: state.initial for state in self._policy.states}
            item.arrays.update(life.states)
        for control in self._policy.controls:
            item.arrays[control.name] = control.told(flags, sequence, shape)
