"""tune(): times the plans that the cost model ranks, inside of the model, and keeps what it found.

The model is built once for every place in the longest list of plans, each time with all kernels'
plans of that place, and a clock in it. So a plan is timed where it will run: its weights come from
where the rest of the model lets them stay. Plans that variants share are compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tuili import __version__
from tuili.bench.clocked import ClockedModel
from tuili.bench.feeds import Shapes, random_feeds
from tuili.bench.tune.problems import Question, answers, questions, variant
from tuili.bench.tune.rounds import best_times
from tuili.codegen.compilers import find_compiler
from tuili.codegen.tuning import Entry, Times, add_entries, default_path
from tuili.compiler import Compiled, Options, generate
from tuili.errors import InvalidArgument
from tuili.importers.onnx import import_model
from tuili.runtime.cpu import host_features, processor
from tuili.tensors import Array

BUDGET_S = 30.0

Progress: TypeAlias = "Callable[[str, int, int], None]"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured; problems known before are not measured again."""

    record: Path
    entries: tuple[Entry, ...]

    @property
    def changed(self) -> int:
        """For how many problems another plan than the cost model's is faster."""
        times = Times({entry.problem: entry.ns for entry in self.entries})
        return sum(times.pick(e.problem, list(e.ns))[0] != next(iter(e.ns)) for e in self.entries)


def tune(
    model: Path,
    options: Options,
    sizes: Shapes | None = None,
    budget_s: float = BUDGET_S,
    on_progress: Progress | None = None,
) -> Tuned:
    """Time the plans of a model's kernels on one thread, and add them to the record of `options`.

    `sizes` gives inputs with open dims their dims while they are timed, 1 by default; `budget_s`
    is for the timing, not for the compilation before it. Raises InvalidArgument for a target that
    this machine does not run.
    """
    progress = on_progress or _silent
    _check_runs_here(options)
    record = options.tuning or default_path()
    add_entries(record, ())  # what cannot be kept need not be measured
    first = _variant(model, options, 0, [])
    asked = questions(first.program.decisions, options.times())
    if not asked:
        return Tuned(record, ())
    feeds = random_feeds(first.program.inputs, sizes)
    subjects: list[ClockedModel] = []
    count = max(len(question.names) for question in asked)
    for place in range(count):
        progress("building variants", place, count)
        compiled = _variant(model, options, place, asked)
        subjects.append(ClockedModel(compiled, options, feeds))
    best = best_times(
        [timed(subject) for subject in subjects],
        budget_s,
        lambda done: progress("timing", round(100 * done), 100),
    )
    nodes = [by_node(subject, times) for subject, times in zip(subjects, best, strict=True)]
    entries = _entries(options, answers(asked, nodes))
    add_entries(record, entries)
    return Tuned(record, entries)


def _silent(step: str, done: int, total: int) -> None:
    """The progress that nobody watches."""


def _check_runs_here(options: Options) -> None:
    target = options.resolve()
    missing = [name for name in target.requires if name not in host_features()]
    if missing:
        raise InvalidArgument(
            f"target {target.name} cannot be measured here: this processor has no "
            f"{', '.join(missing)}; tune on such a machine and give its record with --tuning"
        )


def _variant(model: Path, options: Options, place: int, asked: list[Question]) -> Compiled:
    return generate(import_model(model), options, timed=True, pick=variant(place, asked))


def timed(subject: ClockedModel) -> Callable[[], Array]:
    """A run that returns the nanoseconds of each call."""

    def run() -> Array:
        subject.run()
        return subject.times.copy()

    return run


def by_node(subject: ClockedModel, times: Array) -> dict[str, int]:
    """The nanoseconds of each node: one may be several calls."""
    found: dict[str, int] = {}
    for call, ns in zip(subject.calls, times, strict=True):
        found[call.label] = found.get(call.label, 0) + int(ns)
    return found


def _entries(options: Options, found: Mapping[str, Mapping[str, int]]) -> tuple[Entry, ...]:
    target, here = options.resolve(), processor()
    compiler = find_compiler(target.machine).identity.splitlines()[0]
    return tuple(
        Entry(
            target=target.name,
            processor=here,
            problem=problem,
            ns=dict(ns),
            by=f"tuili {__version__}, {compiler}",
        )
        for problem, ns in found.items()
    )
