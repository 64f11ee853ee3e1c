"""The sequences of one instance of a stateful model: its slots, and the batch that leaves next.

*Direct*: a slot is a row of the batch, so a model may keep state by row. A batch has every slot up
to the last one with a request; slots without one get a blank row that is told not to be ready. The
next batch waits for the end of this one.
*Oldest*: whatever is first in its sequence competes in a queue as requests of any model do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, Self, TypeVar

from tuili.server.protocol.messages import Array
from tuili.server.scheduling.controls import SequenceId
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.queue import Left, RequestQueue, Waiting


class SequenceItem(Waiting, Protocol):
    """A request of a sequence."""

    arrays: dict[str, Array]
    sequence: SequenceId
    starts: bool
    ends: bool

    def blank(self) -> Self:
        """A request of nobody with zeros of the same shapes, for a row that must be there."""
        ...


Item = TypeVar("Item", bound=SequenceItem)


@dataclass(slots=True, eq=False)
class Life(Generic[Item]):
    """One sequence from START to END: its state, where it is held, and the requests that wait."""

    id: SequenceId
    used: float
    states: dict[str, Array] = field(default_factory=dict[str, Array])
    instance: int = -1  # that has its slot; -1: it waits for one
    slot: int = -1
    began: bool = False  # something of it has run
    current: Item | None = None  # it competes, or runs
    waiting: deque[Item] = field(default_factory=deque[Item])
    ended: bool = False
    former: Life[Item] | None = None  # of the same id, whose end it waits for
    successor: Life[Item] | None = None  # the next sequence of the same id


class Slots(Protocol[Item]):
    """The sequences of one instance."""

    @property
    def left(self) -> Left:
        """Why the last batch left."""
        ...

    def put(self, life: Life[Item]) -> None:
        """A sequence has got its slot here."""
        ...

    def free(self, life: Life[Item]) -> None:
        """A sequence has ended."""
        ...

    def advance(self, life: Life[Item]) -> None:
        """Its last request is done, or one came: let the next one compete."""
        ...

    def take(self, now: float) -> list[Item]:
        """The next batch, with blank rows where the model needs them; [] for none."""
        ...

    def again(self, life: Life[Item], item: Item) -> None:
        """A request that had left must run once more."""
        ...

    def remove(self, life: Life[Item], item: Item) -> bool:
        """Take out the request that competes; false when it runs."""
        ...

    def expire(self, now: float) -> list[Item]:
        """Those that compete and whose time ran out, taken out."""
        ...

    def hurry(self) -> None:
        """No batch waits for more requests from now on."""
        ...

    def wake_at(self, now: float) -> float | None:
        """When to ask again though nothing arrives; always after `now`."""
        ...


class Direct(Generic[Item]):
    """A slot is a row."""

    def __init__(
        self, policy: BatchPolicy, count: int, utilization: float, *, keep_rows: bool
    ) -> None:
        self.left = Left.IDLE
        self._policy = policy
        self._lives: list[Life[Item] | None] = [None] * count
        # How many requests a batch waits for, as long as the delay allows.
        self._enough = utilization * count
        self._keep_rows = keep_rows and policy.max_rows > 0

    def put(self, life: Life[Item]) -> None:
        """Row `life.slot` is this sequence's."""
        self._lives[life.slot] = life

    def free(self, life: Life[Item]) -> None:
        """Its row is nobody's."""
        self._lives[life.slot] = None

    def advance(self, life: Life[Item]) -> None:
        """Nothing: a batch looks at the slots itself."""

    def take(self, now: float) -> list[Item]:
        """One request of every slot that has one of the same shape."""
        lives = [life for life in self._lives if life is not None]
        if any(life.current is not None for life in lives):
            return []
        ready = [life for life in lives if life.waiting]
        if not ready or self._waits(ready, now):
            return []
        lane = ready[0].waiting[0].lane
        blank = ready[0].waiting[0]
        batch: list[Item] = []
        for life in self._lives[: ready[-1].slot + 1]:
            if life is not None and life.waiting and life.waiting[0].lane == lane:
                life.current = life.waiting.popleft()
                batch.append(life.current)
            elif self._keep_rows:
                batch.append(blank.blank())
        return batch

    def again(self, life: Life[Item], item: Item) -> None:
        """It is the first of its slot once more."""
        life.current = None
        life.waiting.appendleft(item)

    def remove(self, life: Life[Item], item: Item) -> bool:
        """What is `current` here runs."""
        del life, item
        return False

    def expire(self, now: float) -> list[Item]:
        """None compete."""
        del now
        return []

    def hurry(self) -> None:
        """As if there were no delay."""
        self._policy = replace(self._policy, max_delay_s=0.0)

    def wake_at(self, now: float) -> float | None:
        """The end of the delay."""
        if not self._enough or not self._policy.max_delay_s:
            return None
        heads = [life.waiting[0] for life in self._lives if life is not None and life.waiting]
        moment = min((head.arrived for head in heads), default=0.0) + self._policy.max_delay_s
        return moment if heads and moment > now else None

    def _waits(self, ready: list[Life[Item]], now: float) -> bool:
        self.left = Left.IDLE
        if not self._policy.max_delay_s or len(ready) >= self._enough:
            return False
        self.left = Left.TIMEOUT
        oldest = min(life.waiting[0].arrived for life in ready)
        return now < oldest + self._policy.max_delay_s


class Oldest(Generic[Item]):
    """The first request of every sequence competes in a queue."""

    def __init__(self, policy: BatchPolicy, competes: Callable[[Item], None]) -> None:
        """`competes` is told of each request when it becomes the first of its sequence here."""
        self._queue: RequestQueue[Item] = RequestQueue(policy)
        self._competes = competes

    @property
    def left(self) -> Left:
        """Why the last batch left."""
        return self._queue.left

    def put(self, life: Life[Item]) -> None:
        """Any number of sequences may be here."""
        self.advance(life)

    def free(self, life: Life[Item]) -> None:
        """Nothing is noted of a sequence but its requests."""

    def advance(self, life: Life[Item]) -> None:
        """Let the first that waits compete, unless one of its sequence competes or runs."""
        if life.current is None and life.waiting:
            life.current = life.waiting.popleft()
            self._competes(life.current)
            self._queue.push(life.current)

    def take(self, now: float) -> list[Item]:
        """A batch of those that compete."""
        return self._queue.take(now)

    def again(self, life: Life[Item], item: Item) -> None:
        """It competes once more."""
        del life
        self._queue.readmit(item)

    def remove(self, life: Life[Item], item: Item) -> bool:
        """Out of the queue."""
        if not self._queue.remove(item):
            return False
        life.current = None
        return True

    def expire(self, now: float) -> list[Item]:
        """Out of the queue."""
        return self._queue.expire(now)

    def hurry(self) -> None:
        """As for requests without sequences."""
        self._queue.hurry()

    def wake_at(self, now: float) -> float | None:
        """The end of a delay or of a request's time."""
        return self._queue.wake_at(now)
