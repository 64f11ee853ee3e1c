"""The account of a run: per call its kernel, cost, rate and limit; reorders; what is not fused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tuili.bench.explain.peaks import Peaks
from tuili.bench.explain.timing import CallTime, Timed
from tuili.codegen.decisions import tell
from tuili.codegen.families import FAMILIES
from tuili.ir import Graph, Node
from tuili.passes.body import is_elementwise
from tuili.passes.fuse_epilogue import OWN_SLOTS

_SHORT_NS: Final = 5_000
_GOOD: Final = 0.7
_FUSED: Final = "Fused"


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel call."""

    label: str
    kernel: str
    family: str
    refused: tuple[str, ...]  # families that were tried before and do not fit
    ms: float
    share: float  # of the time of all calls
    flops: int
    bytes: int
    gflops: float
    of_peak: float  # of the measured peak of multiply-adds
    of_limit: float  # of what the roofline allows
    bound: str  # arithmetic, memory, or neither known
    note: str


@dataclass(frozen=True, slots=True)
class Account:
    """The rows in order of the run, and the whole."""

    model: str
    target: str
    threads: int
    peaks: Peaks
    rows: list[Row]
    run_ms: float
    floor_ms: float  # all arithmetic at the peak, or all weights once through memory
    reorders: list[Row]
    host_steps: list[str]
    unfused: list[tuple[str, str]]  # node, why
    measured: list[str]  # what was decided by a tuning record, and why


def account(timed: Timed, peaks: Peaks, target: str, threads: int) -> Account:
    """The account of a timed model."""
    total = sum(each.best_ns for each in timed.calls) or 1
    program = timed.compiled.program
    rows = [
        _row(each, peaks, threads, total, program.families.get(each.call.label, ("", ())))
        for each in timed.calls
    ]
    flops = sum(each.flops for each in timed.calls)
    floor = peaks.attainable(flops, sum(weight.array.nbytes for weight in program.weights), threads)
    return Account(
        program.name, target, threads, peaks, rows, timed.run_ns / 1e6, floor / 1e6,
        [row for row in rows if row.label.startswith("Reorder ")],
        [node.label for graph in program.host for node in graph.nodes],
        list(_unfused(timed.compiled.graph)),
        [str(told) for told in tell(program.decisions)],
    )  # fmt: skip


def _row(
    each: CallTime, peaks: Peaks, threads: int, total: int, chosen: tuple[str, tuple[str, ...]]
) -> Row:
    ns = max(each.best_ns, 1)
    limit = peaks.attainable(each.flops, each.bytes, threads)
    arithmetic = each.flops / (peaks.gflops * threads)
    row = Row(
        label=each.call.label,
        kernel=each.call.kernel.name,
        family=chosen[0],
        refused=chosen[1],
        ms=ns / 1e6,
        share=each.best_ns / total,
        flops=each.flops,
        bytes=each.bytes,
        gflops=each.flops / ns,
        of_peak=arithmetic / ns,
        of_limit=limit / ns,
        bound="" if not limit else "arithmetic" if arithmetic >= limit else "memory",
        note="",
    )
    return row if row.of_limit >= _GOOD else _noted(row)


def _noted(row: Row) -> Row:
    note = next((text for fits, text in _NOTES if fits(row)), "")
    return replace(row, note=note)


# Why a call is below 70 % of its limit: the first that fits.
_NOTES: Final[Sequence[tuple[Callable[[Row], bool], str]]] = (
    (lambda row: not row.bound, "costs are not known before the run: data decides the sizes"),
    (lambda row: row.ms * 1e6 < _SHORT_NS, "too short to reach a rate: start-up and edges count"),
    (lambda row: row.label.startswith("Reorder "), "moves elements between layouts: no arithmetic"),
    (lambda row: row.bound == "memory", "instructions limit it before its bytes do"),
    (lambda row: True, "few rows, channels or columns leave vectors or tiles partly empty"),
)


def families_of(op: str) -> tuple[str, ...]:
    """The names of the families of an operator, in the order in which they are tried."""
    return tuple(family.name for family in FAMILIES.get(op, ()))


def _unfused(graph: Graph) -> Iterator[tuple[str, str]]:
    """Elementwise nodes that follow an anchor and run apart from it, with the reason."""
    for node in graph.nodes:
        if node.op != _FUSED and not is_elementwise(node):
            continue
        for value in node.inputs:
            anchor = value.producer if value is not None else None
            if anchor is not None and anchor.op in OWN_SLOTS:
                yield node.label, _why_apart(node, anchor)


def _why_apart(node: Node, anchor: Node) -> str:
    users = len(anchor.output.users)
    if users > 1:
        return f"{anchor.label} feeds {users} nodes, which do not join again at one"
    if anchor.output.is_output:
        return f"the result of {anchor.label} is an output of the model"
    if node.output.shape != anchor.output.shape:
        return f"its shape is not that of {anchor.label}"
    return f"an operand is neither one element, one per channel, nor of the shape of {anchor.label}"
