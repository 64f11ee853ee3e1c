"""The C printer: a program becomes translation units that the system compiler turns into a library.

One unit holds the run function; every large kernel has a unit of its own, so that units compile in
parallel and an unchanged kernel is found in the object cache; small kernels share units.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from tuili.codegen.prelude import prelude
from tuili.codegen.run_function import comment_text, print_run, signature
from tuili.codegen.targets import Target
from tuili.lower.memory import MemoryPlan
from tuili.lower.program import Kernel, Program, calls_of

RUN_UNIT = "run"
GROUP_CHARACTERS = 12_000
ALONE_CHARACTERS = 2_500


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """One C file; `shown` is its text without what every unit repeats."""

    name: str
    text: str
    shown: str


@dataclass(frozen=True, slots=True)
class Emitted:
    """The C of a program, and its memory plan when all sizes are known."""

    units: tuple[SourceUnit, ...]
    plan: MemoryPlan | None


def emit(program: Program, target: Target, *, timed: bool = False) -> Emitted:
    """The C units of a program; `timed` adds a clock to the run function."""
    renamed = _unique_kernels(program)
    names = {kernel: name for name, kernel in renamed.items()}
    sources = _sources_by_kernel(program)
    run_unit, plan = print_run(program, target, names, timed=timed)
    groups = _groups(renamed)
    units = [SourceUnit(RUN_UNIT, run_unit, run_unit)]
    for group in groups:
        functions = [_function(name, renamed[name], sources[renamed[name]]) for name in group]
        header = f"/* Kernels printed by tuili for {target.name}: {', '.join(group)}. */"
        text = "\n".join([header, prelude(target), *functions])
        units.append(SourceUnit(group[0], text, "\n".join(functions)))
    return Emitted(tuple(units), plan)


# -- kernels ---------------------------------------------------------------------------------


def _unique_kernels(program: Program) -> dict[str, Kernel]:
    """Every distinct kernel once, under a unique C name."""
    named: dict[str, Kernel] = {}
    seen: set[Kernel] = set()
    for step in calls_of(program.steps):
        kernel = step.kernel
        if kernel in seen:
            continue
        seen.add(kernel)
        # The prefix keeps names such as `div` away from those of the C library.
        name, count = f"k_{kernel.name}", 1
        while name in named:
            count += 1
            name = f"k_{kernel.name}_{count}"
        named[name] = kernel
    return named


def _sources_by_kernel(program: Program) -> dict[Kernel, list[str]]:
    labels: dict[Kernel, list[str]] = {}
    for step in calls_of(program.steps):
        labels.setdefault(step.kernel, []).append(step.label)
    return labels


def _groups(kernels: dict[str, Kernel]) -> list[list[str]]:
    alone = [[name] for name, kernel in kernels.items() if _is_alone(kernel)]
    shared: list[list[str]] = []
    room = 0
    for name, kernel in kernels.items():
        if _is_alone(kernel):
            continue
        if room < _length(kernel):
            shared.append([])
            room = GROUP_CHARACTERS
        shared[-1].append(name)
        room -= _length(kernel)
    return [*alone, *shared]


def _is_alone(kernel: Kernel) -> bool:
    """Support functions of different kernels may share names, so such kernels share no unit."""
    return bool(kernel.support) or _length(kernel) >= ALONE_CHARACTERS


def _length(kernel: Kernel) -> int:
    return len(kernel.body) + len(kernel.support)


def _function(name: str, kernel: Kernel, labels: list[str]) -> str:
    nodes = ", ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
    lines = ["", *([kernel.support, ""] if kernel.support else []), comment_text(nodes)]
    lines += [signature(name, kernel), "{", "    (void)begin, (void)end, (void)scratch;"]
    return "\n".join([*lines, textwrap.indent(kernel.body, "    "), "}"])
