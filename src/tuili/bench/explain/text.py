"""The account as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from tuili.bench.explain.account import Account, Row

_MOST_UNFUSED = 5  # told one by one; a deep network has one for every block

COLUMNS = ("ms", "share", "GFLOP/s", "of peak", "of limit", "bound", "kernel", "node", "note")


def table(account: Account, top: int) -> Table:
    """The slowest calls first."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(COLUMNS):
        found.add_column(name, justify="right" if at < 5 else "left", overflow="fold")
    for row in slowest(account, top):
        found.add_row(*(Text(cell) for cell in cells(row)))
    return found


def slowest(account: Account, top: int) -> list[Row]:
    """The calls that take longest."""
    return sorted(account.rows, key=lambda row: -row.ms)[:top]


def cells(row: Row) -> tuple[str, ...]:
    """One row as text."""
    return (
        f"{row.ms:.4f}", f"{100 * row.share:.1f} %", f"{row.gflops:.1f}",
        f"{100 * row.of_peak:.0f} %", f"{100 * row.of_limit:.0f} %", row.bound,
        row.kernel, row.label, row.note,
    )  # fmt: skip


def summary(account: Account) -> Iterator[str]:
    """The whole in sentences."""
    peaks, called = account.peaks, sum(row.ms for row in account.rows)
    yield (
        f"{account.model} on {account.target}, {account.threads} thread(s): "
        f"{account.run_ms:.3f} ms a run, {called:.3f} ms of it in {len(account.rows)} kernel calls"
    )
    flops = sum(row.flops for row in account.rows)
    yield (
        f"measured here: {peaks.gflops:.1f} GFLOP/s a core, "
        f"{peaks.gbytes_near:.0f} / {peaks.gbytes_far:.0f} / {peaks.gbytes:.0f} GB/s from near "
        f"cache, far cache, memory; the model: "
        f"{flops / 1e9:.3f} GFLOP, floor {account.floor_ms:.3f} ms "
        f"({_percent(account.floor_ms, account.run_ms)} of the run)"
    )
    spent = sum(row.ms for row in account.reorders)
    yield f"layout reorders: {len(account.reorders)} calls, {spent:.3f} ms"
    if account.host_steps:
        yield f"run by Python: {len(account.host_steps)}: {', '.join(account.host_steps[:8])}"
    for choice in account.measured:
        yield f"chosen by time: {choice}"
    for node, why in account.unfused[:_MOST_UNFUSED]:
        yield f"not fused: {node}: {why}"
    if (more := len(account.unfused) - _MOST_UNFUSED) > 0:
        yield f"not fused: {more} more; --json has them all"


def choices(account: Account) -> Iterator[str]:
    """Which family runs how many nodes, and which were asked before."""
    counted: dict[tuple[str, tuple[str, ...]], int] = {}
    for row in account.rows:
        if row.family:
            counted[row.family, row.refused] = counted.get((row.family, row.refused), 0) + 1
    for (family, refused), count in sorted(counted.items(), key=lambda item: -item[1]):
        before = f"; asked before, and they do not fit: {', '.join(refused)}" if refused else ""
        yield f"{count} x {family}{before}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
