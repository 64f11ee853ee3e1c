"""The memory plan: where each arena buffer lives, so that buffers alive together never overlap.

Greedy by size with best fit (Pisarchyk and Lee, arXiv 2001.03288): the largest buffer first, each
into the smallest gap between the buffers that are alive at the same time. The plan is made here
when every size is known; for run-time sizes the artifact carries the same algorithm in C. Here,
where there is time, other orders are tried, and the best plan, if it is above the lower bound, is
improved: what lies at its top goes earlier.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tuili.lower.program import ALIGNMENT, Branch, Buffer, Program, Repeat, Step, touched

MOST_ATTEMPTS = 200  # to improve a plan
MOST_WORK = 4_000_000  # pairs of intervals in all attempts: a second or two


@dataclass(frozen=True, slots=True)
class Interval:
    """A buffer's life: from the step that first touches it to the last."""

    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Offsets in the order of the intervals, the bytes needed, and the least possible."""

    offsets: tuple[int, ...]
    size: int
    lower_bound: int


def lifetimes(program: Program) -> dict[Buffer, tuple[int, int]]:
    """The first and last moment that touch each arena buffer; untouched buffers are left out.

    Both sides of a branch follow each other: what one of them needs is kept through the other.
    What is touched inside a loop and outside of it lives through all of its rounds.
    """
    lives: dict[Buffer, tuple[int, int]] = {}
    arena = set(program.buffers)
    moments: list[list[Buffer]] = []
    loops: list[tuple[int, int]] = []
    _walk(program.steps, moments, loops)
    for moment, buffers in enumerate(moments):
        for buffer in buffers:
            if buffer in arena:
                lives[buffer] = (lives.get(buffer, (moment, moment))[0], moment)
    for start, end in loops:  # inner loops come first
        for buffer, (first, last) in lives.items():
            inside = start <= first and last <= end
            if not inside and first <= end and start <= last:
                lives[buffer] = (min(first, start), max(last, end))
    return lives


def _walk(steps: Sequence[Step], moments: list[list[Buffer]], loops: list[tuple[int, int]]) -> None:
    """Append the buffers of every moment, and the first and last moment of every loop."""
    for step in steps:
        moments.append(touched(step))
        if isinstance(step, Branch):
            _walk(step.then, moments, loops)
            _walk(step.otherwise, moments, loops)
            # Slow threads may still look at the condition while others are inside.
            moments.append(touched(step))
        elif isinstance(step, Repeat):
            _walk(step.enter, moments, loops)
            start = len(moments)
            moments.append(touched(step))
            _walk([*step.body, *step.commit], moments, loops)
            moments.append(touched(step))
            loops.append((start, len(moments) - 1))


def aligned(size: int) -> int:
    """`size` rounded up to the alignment of buffers."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan_memory(intervals: Sequence[Interval]) -> MemoryPlan:
    """Place every interval; the same intervals give the same plan."""
    best = _improved(intervals, by_size(intervals), MOST_WORK)
    for start in (_by_area, _by_length):
        if best.size <= best.lower_bound:
            break
        found = _improved(intervals, start(intervals), MOST_WORK // 4)
        best = min(best, found, key=lambda plan: plan.size)
    return best


def _improved(intervals: Sequence[Interval], order: list[int], work: int) -> MemoryPlan:
    """The plan of an order, and of orders near it while they are better."""
    best = place_in_order(intervals, order)
    chance = random.Random(0)  # repeatable
    for _ in range(min(MOST_ATTEMPTS, work // (len(intervals) ** 2 + 1))):
        if best.size <= best.lower_bound:
            break
        top = [i for i in order if best.offsets[i] + aligned(intervals[i].size) == best.size]
        moved = chance.choice(top)
        other = [i for i in order if i != moved]
        other.insert(chance.randrange(order.index(moved) + 1), moved)
        found = place_in_order(intervals, other)
        if found.size <= best.size:
            best, order = found, other
    return best


def by_size(intervals: Sequence[Interval]) -> list[int]:
    """The largest first, then the earliest: the order of the planner in C."""
    return sorted(range(len(intervals)), key=lambda i: (-intervals[i].size, intervals[i].first, i))


def _by_area(intervals: Sequence[Interval]) -> list[int]:
    """What takes the most bytes for the longest time first."""
    areas = [life.size * (life.last - life.first + 1) for life in intervals]
    return sorted(range(len(intervals)), key=lambda i: (-areas[i], i))


def _by_length(intervals: Sequence[Interval]) -> list[int]:
    """What lives longest first."""
    lengths = [life.last - life.first for life in intervals]
    return sorted(range(len(intervals)), key=lambda i: (-lengths[i], -intervals[i].size, i))


def place_in_order(intervals: Sequence[Interval], order: Sequence[int]) -> MemoryPlan:
    """Each interval into the smallest gap that those before it leave."""
    offsets = [0] * len(intervals)
    placed: list[int] = []
    for index in order:
        offsets[index] = _best_gap(index, intervals, offsets, placed)
        placed.append(index)
    size = max((offsets[i] + aligned(intervals[i].size) for i in placed), default=0)
    return MemoryPlan(tuple(offsets), size, lower_bound(intervals))


def _best_gap(
    index: int, intervals: Sequence[Interval], offsets: list[int], placed: list[int]
) -> int:
    me = intervals[index]
    wanted = aligned(me.size)
    neighbours = sorted(
        (offsets[i], aligned(intervals[i].size))
        for i in placed
        if intervals[i].first <= me.last and me.first <= intervals[i].last
    )
    best, best_gap, end = -1, -1, 0
    for start, size in neighbours:
        gap = start - end
        if gap >= wanted and (best < 0 or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, start + size)
    return end if best < 0 else best


def lower_bound(intervals: Sequence[Interval]) -> int:
    """The most bytes alive at any one step: no plan can need less."""
    changes: dict[int, int] = {}
    for life in intervals:
        changes[life.first] = changes.get(life.first, 0) + aligned(life.size)
        changes[life.last + 1] = changes.get(life.last + 1, 0) - aligned(life.size)
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most
