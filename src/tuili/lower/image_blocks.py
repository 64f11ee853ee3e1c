"""Blocks: what stays inside a loop over images lies in one piece of memory.

Its places are planned here, so that a run may give every thread a block of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuili.lower.memory import Interval, plan_memory
from tuili.lower.program import (
    Buffer,
    Call,
    Place,
    Pointer,
    Program,
    Repeat,
    Step,
    View,
    all_steps,
    touched,
)
from tuili.tensors import DType


def gather_blocks(program: Program) -> None:
    """Give every loop over images a block, where it consists of calls and sizes are known."""
    program.steps = [
        _gathered(step, program) if isinstance(step, Repeat) and _is_apart(step) else step
        for step in program.steps
    ]


def _is_apart(loop: Repeat) -> bool:
    return loop.counted and not loop.ordered


def _gathered(loop: Repeat, program: Program) -> Repeat:
    calls = [step for step in loop.body if isinstance(step, Call)]
    inner = _inner(loop, program)
    intervals = [
        Interval(buffer.size, first, last)
        for buffer, (first, last) in inner.items()
        if isinstance(buffer.size, int)
    ]
    if len(calls) < len(loop.body) or len(intervals) < len(inner) or not inner:
        return loop
    plan = plan_memory(intervals)
    block = Buffer(f"{loop.label}, an image", DType.U8, plan.size, Place.ARENA)
    places = dict(zip(inner, plan.offsets, strict=True))
    program.buffers = [*(each for each in program.buffers if each not in places), block]
    return replace(loop, block=block, body=[_moved(call, block, places) for call in calls])


def _inner(loop: Repeat, program: Program) -> dict[Buffer, tuple[int, int]]:
    """The buffers that nothing outside touches, from the first to the last step that does."""
    others: Iterable[Step] = (step for step in program.steps if step is not loop)
    outside = {buffer for step in all_steps([*others]) for buffer in touched(step)}
    lives: dict[Buffer, tuple[int, int]] = {}
    for at, step in enumerate(loop.body):
        for buffer in touched(step):
            if buffer.place is Place.ARENA and buffer not in outside:
                lives[buffer] = (lives.get(buffer, (at, at))[0], at)
    return lives


def _moved(call: Call, block: Buffer, places: dict[Buffer, int]) -> Call:
    args = [
        replace(arg, view=View(block, places[arg.view.buffer] + arg.view.offset))
        if isinstance(arg, Pointer) and arg.view.buffer in places
        else arg
        for arg in call.args
    ]
    return replace(call, args=tuple(args))
