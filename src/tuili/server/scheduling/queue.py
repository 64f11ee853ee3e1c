"""RequestQueue: waiting requests of one model version, and the batch that leaves next.

Theory of operation
- Requests wait in *lanes*: one per priority level and per shape. Only requests of one shape join a
  batch, and each lane is first in, first out.
- The next batch starts with the oldest request of the most urgent level, and takes followers of
  the same shape, first from its own level, then from less urgent ones.
- A batch leaves as soon as somebody can run it, as large as is worth it, unless a delay is set;
  then when it reaches a preferred size, cannot grow, others wait behind it that cannot join (as in
  Triton), or its oldest member has waited the delay.
- Requests leave early by `remove` (cancelled) or `expire` (their time ran out); both free their
  place in the queue at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from tuili.errors import Overloaded
from tuili.server.scheduling.pacing import Pace
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy


class Waiting(Protocol):
    """What the queue needs to know of a request, and notes on it."""

    rows: int
    lane: object
    level: int
    arrived: float
    expires: float  # 0.0: never
    queued: bool


class Left(StrEnum):
    """Why a batch left."""

    ALONE = "alone"
    IDLE = "idle"
    FULL = "full"
    WORTH = "worth"
    PREFERRED = "preferred"
    TIMEOUT = "timeout"


Item = TypeVar("Item", bound=Waiting)
# How far behind the oldest a small request is looked for.
_LOOK_AHEAD: Final = 64


class RequestQueue(Generic[Item]):
    """Waiting requests of one model version."""

    def __init__(
        self,
        policy: BatchPolicy,
        most_rows: Callable[[Item], int] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.policy = policy
        # How many rows are worth joining with this request; without it, all that fit.
        self._most_rows = most_rows
        self._pace = pace
        # Since when an instance has been free for a batch that waits for more; None: none waits.
        self._held_at: float | None = None
        self.left = Left.IDLE
        self._levels: dict[int, dict[object, deque[Item]]] = {}
        self._sizes: dict[int, int] = {}
        self._order: list[int] = []
        self._expiries: list[tuple[float, int, Item]] = []
        self._pushed = 0
        self._size = 0
        self._has_limits = policy.has_limits

    def __len__(self) -> int:
        return self._size

    def ahead(self, level: int) -> int:
        """How many requests leave before one of this level that comes now."""
        if len(self._order) <= 1:
            return self._size
        rank = _rank(level)
        return sum(count for other, count in self._sizes.items() if _rank(other) <= rank)

    def head(self) -> Item:
        """Who is first in a queue that is not empty."""
        level, lane = self._oldest()
        return self._levels[level][lane][0]

    def push(self, item: Item, timeout_s: float = 0.0) -> None:
        """Let `item` wait; Overloaded when its level is full. `timeout_s` is the request's own."""
        if self._has_limits or timeout_s or item.expires:
            limits = self.policy.policy_of(item.level)
            if limits.max_queue_size and self._sizes.get(item.level, 0) >= limits.max_queue_size:
                raise Overloaded("Exceeds maximum queue size")
            self._set_expiry(item, limits, timeout_s)
        self._append(item)

    def stop_merging(self) -> None:
        """From now on every request leaves alone."""
        self.policy = replace(self.policy, merge=False)

    def hurry(self) -> None:
        """Hardly anybody comes any more: what waits is not kept for others to join."""
        self.policy = replace(self.policy, max_delay_s=0.0)
        self._pace = None

    def readmit(self, item: Item) -> None:
        """Let an item that had left wait again, whatever the limits."""
        self._append(item)

    def remove(self, item: Item) -> bool:
        """Take a waiting item out; false when it is not waiting any more."""
        if not item.queued:
            return False
        lanes = self._levels[item.level]
        lanes[item.lane].remove(item)
        self._forget(item)
        return True

    def expire(self, now: float) -> list[Item]:
        """The items whose time ran out, taken out; a "delay" level's go behind its others."""
        expired: list[Item] = []
        while self._expiries and self._expiries[0][0] <= now:
            item = heapq.heappop(self._expiries)[2]
            if not item.queued or item.expires > now:
                continue
            self.remove(item)
            if item.level >= 0 and self.policy.policy_of(item.level).on_timeout == "delay":
                item.level = ~item.level
                item.expires = 0.0
                self._append(item)
            else:
                expired.append(item)
        return expired

    def take(self, now: float) -> list[Item]:
        """The next batch, or [] when nothing waits or waiting longer is better; sets `left`."""
        if not self._size:
            return []
        level, lane = self._oldest()
        policy = self.policy
        if not policy.merge or not policy.max_rows:
            self.left = Left.ALONE
            return self._pop(lane, level, 1)
        if not policy.preferred_rows and not policy.max_delay_s and len(self._order) == 1:
            return self._pop_rows(lane, level, now)
        return self._form(level, self._levels[level][lane][0], now)

    def wake_at(self, now: float) -> float | None:
        """When to ask again though nothing arrives: the end of a delay or of a request's time.

        Always after `now`: a delay that has ended waits for an instance, not for the clock.
        """
        if not self._expiries and self._held_at is None and not self.policy.max_delay_s:
            return None  # the everyday case
        while self._expiries and not self._expiries[0][2].queued:
            heapq.heappop(self._expiries)
        moments = [self._expiries[0][0]] if self._expiries else []
        if self._held_at is not None and self._size and self._pace is not None:
            moments.append(self._held_at + self._pace.delay_s)
        elif self._size and self.policy.max_delay_s:
            level, lane = self._oldest()
            moments.append(self._levels[level][lane][0].arrived + self.policy.max_delay_s)
        return min([moment for moment in moments if moment > now], default=None)

    def gathered(self) -> tuple[int, int]:
        """How many requests wait; none waits in a backlog."""
        return self._size, 0

    def dropped(self) -> tuple[()]:
        """Requests that left without being asked for: none."""
        return ()

    def drain(self) -> list[Item]:
        """Everything that waits, taken out."""
        items = [
            item for lanes in self._levels.values() for lane in lanes.values() for item in lane
        ]
        for item in items:
            self.remove(item)
        return items

    def _set_expiry(self, item: Item, limits: LevelPolicy, timeout_s: float) -> None:
        allowed = limits.timeout_s
        if timeout_s and limits.allow_timeout_override:
            allowed = min(allowed, timeout_s) if allowed else timeout_s
        if allowed:
            moment = item.arrived + allowed
            item.expires = min(item.expires, moment) if item.expires else moment
        if item.expires:
            self._pushed += 1
            heapq.heappush(self._expiries, (item.expires, self._pushed, item))

    def _append(self, item: Item) -> None:
        level = item.level
        lanes = self._levels.get(level)
        if lanes is None:
            lanes = self._levels[level] = {}
            self._order = sorted(self._levels, key=_rank)
        lane = lanes.get(item.lane)
        if lane is None:
            lane = lanes[item.lane] = deque()
        lane.append(item)
        item.queued = True
        self._size += 1
        self._sizes[level] = self._sizes.get(level, 0) + 1

    def _forget(self, item: Item) -> None:
        """Account for an item that was just taken out of its lane."""
        item.queued = False
        self._size -= 1
        self._sizes[item.level] -= 1
        lanes = self._levels[item.level]
        if not lanes[item.lane]:
            # Lanes come and go with shapes: memory must not grow with the variety of shapes seen.
            del lanes[item.lane]
            if not lanes and len(self._order) > 1:
                del self._levels[item.level]
                self._order = sorted(self._levels, key=_rank)

    def _oldest(self) -> tuple[int, object]:
        """Level and lane of the most urgent, oldest request."""
        for level in self._order:
            lanes = self._levels[level]
            if len(lanes) == 1:
                return level, next(iter(lanes))
            if lanes:
                return level, min(lanes, key=lambda lane: lanes[lane][0].arrived)
        raise AssertionError("asked for the oldest request of an empty queue")

    def _pop(self, lane: object, level: int, count: int) -> list[Item]:
        waiting = self._levels[level][lane]
        if count == len(waiting) and len(self._order) == 1:
            # The everyday case: all of them leave, and no other level has to be thought of.
            items = list(waiting)
            del self._levels[level][lane]
            for item in items:
                item.queued = False
            self._size -= count
            self._sizes[level] -= count
            return items
        items = []
        for _ in range(count):
            items.append(waiting.popleft())
            self._forget(items[-1])
        return items

    def _pop_rows(self, lane: object, level: int, now: float) -> list[Item]:
        """As many of one lane as fit in a batch: the everyday case, no delay and no preference."""
        waiting = self._levels[level][lane]
        most = self.policy.max_rows
        if self._most_rows is not None and len(waiting) > 1:
            most = self._most_rows(waiting[0])
        rows, count = 0, 0
        for item in waiting:
            if rows + item.rows > most:
                break
            rows += item.rows
            count += 1
        if count == len(waiting) and rows < most and self._holds(now):
            return []
        held_at, self._held_at = self._held_at, None
        if count == len(waiting):
            self.left = Left.IDLE if held_at is None else Left.TIMEOUT
        else:
            self.left = Left.FULL if most == self.policy.max_rows else Left.WORTH
            if self.policy.pack and count and rows < most:
                return self._pack(waiting, most)
        return self._pop(lane, level, max(count, 1))

    def _holds(self, now: float) -> bool:
        """Whether more requests are worth waiting for though an instance is free."""
        pace = self._pace
        if pace is None or not pace.delay_s:
            return False
        since = now if self._held_at is None else self._held_at
        if not pace.holds(self._size, since, now):
            return False
        self._held_at = since
        return True

    def _pack(self, waiting: deque[Item], most: int) -> list[Item]:
        """The oldest and whoever behind it still fits: small ones fill what a large one leaves."""
        rows = 0
        batch: list[Item] = []
        for item in islice(waiting, _LOOK_AHEAD):
            if rows + item.rows <= most:
                rows += item.rows
                batch.append(item)
        for item in batch:
            self.remove(item)
        return batch

    def _form(self, first_level: int, head: Item, now: float) -> list[Item]:
        policy = self.policy
        candidates = [
            item
            for level in self._order
            if _rank(level) >= _rank(first_level)
            for item in self._levels[level].get(head.lane, ())
        ]
        most_preferred = max(policy.preferred_rows, default=policy.max_rows)
        rows, count, preferred, full = 0, 0, 0, False
        reason = Left.FULL
        for number, item in enumerate(candidates, 1):
            if count and rows + item.rows > most_preferred and not preferred:
                # Larger than all preferred ones: better what there is now.
                preferred = count
            if rows + item.rows > policy.max_rows:
                full = True
                break
            rows += item.rows
            count = number
            if rows in policy.preferred_rows:
                preferred, reason = number, Left.PREFERRED
        waited = policy.max_delay_s > 0 and now >= head.arrived + policy.max_delay_s
        if preferred and not waited:
            self.left, count = reason, preferred
        elif full or rows >= most_preferred or self._size > len(candidates):
            # It cannot grow any more, or others wait behind it that cannot join.
            self.left = Left.FULL
        elif waited:
            self.left = Left.TIMEOUT
        elif policy.max_delay_s:
            return []
        else:
            self.left = Left.IDLE
        batch = candidates[: max(count, 1)]
        for item in batch:
            self.remove(item)
        return batch


def _rank(level: int) -> int:
    """In which order levels leave: those of level L whose time ran out, as ~L, right behind it."""
    return 2 * level if level >= 0 else 2 * ~level + 1
