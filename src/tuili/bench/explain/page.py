"""The account as one HTML page: a roofline plot, and the table of all calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from tuili.bench.explain.account import Account, Row
from tuili.bench.explain.text import COLUMNS, cells, choices, slowest, summary

_WIDTH, _HEIGHT, _MARGIN = 860, 460, 60
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; color: #1b1f24; max-width: 1300px }
table { border-collapse: collapse; font-size: 12px } td, th { padding: 2px 8px; text-align: left }
td:nth-child(-n+5), th:nth-child(-n+5) { text-align: right; font-variant-numeric: tabular-nums }
tr:nth-child(even) { background: #f3f5f7 } svg text { font-size: 11px; fill: #444 }
"""


def page(account: Account) -> str:
    """A self-contained page."""
    rows = "\n".join(_row(row) for row in slowest(account, len(account.rows)))
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    told = "".join(f"<p>{escape(line)}</p>" for line in summary(account))
    chosen = "".join(f"<li>{escape(line)}</li>" for line in choices(account))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(account.model)}</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(account.model)}</h1>
{told}
<h2>Roofline</h2>
{roofline(account)}
<p>A dot is a kernel call, its area the share of the time. The line is what the machine allows at
that many operations a byte of memory; calls whose bytes lie in a cache may be above it.</p>
<h2>Kernel families</h2><ul>{chosen}</ul>
<h2>Calls, slowest first</h2>
<table><tr>{head}</tr>
{rows}
</table></body></html>
"""


def _row(row: Row) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>"


def roofline(account: Account) -> str:
    """The plot as SVG: both axes logarithmic."""
    dots = [row for row in account.rows if row.flops and row.bytes]
    top = account.peaks.gflops * account.threads
    axes = _Axes(
        min([0.05, *(row.flops / row.bytes for row in dots)]),
        max([100.0, *(row.flops / row.bytes for row in dots)]),
        min([top / 1000, *(row.gflops for row in dots)]),
        top * 1.5,
    )
    ridge = top / account.peaks.gbytes
    low = axes.left * account.peaks.gbytes
    corners = ((axes.left, low), (ridge, top), (axes.right, top))
    line = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in corners)
    parts = [
        *axes.grid(),
        f'<polyline points="{line}" fill="none" stroke="#c0392b" stroke-width="2"/>',
        *(_dot(row, axes) for row in sorted(dots, key=lambda row: -row.share)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}">' + "".join(parts) + "</svg>"
    )


def _dot(row: Row, axes: _Axes) -> str:
    radius = 3 + 40 * math.sqrt(row.share / math.pi)
    title = f"{row.label}: {row.ms:.4f} ms, {row.gflops:.1f} GFLOP/s, {100 * row.of_limit:.0f} %"
    return (
        f'<circle cx="{axes.x(row.flops / row.bytes):.1f}" cy="{axes.y(row.gflops):.1f}" '
        f'r="{radius:.1f}" fill="#2c6fbb" fill-opacity="0.45"><title>{escape(title)}</title>'
        "</circle>"
    )


class _Axes:
    """Logarithmic axes: operations a byte to the right, GFLOP/s upwards."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.left, self.right = max(left, 1e-3), right
        self._bottom, self._top = max(bottom, 1e-3), top

    def x(self, value: float) -> float:
        """Pixels from the left."""
        share = math.log(value / self.left) / math.log(self.right / self.left)
        return _MARGIN + share * (_WIDTH - 2 * _MARGIN)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = math.log(max(value, self._bottom) / self._bottom)
        share /= math.log(self._top / self._bottom)
        return _HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN)

    def grid(self) -> Iterator[str]:
        """A line and a label at every power of ten, and what the axes mean."""
        low, high = _HEIGHT - _MARGIN, _MARGIN
        for power in _powers(self.left, self.right):
            x = self.x(power)
            yield f'<line x1="{x:.1f}" y1="{low}" x2="{x:.1f}" y2="{high}" stroke="#ddd"/>'
            yield f'<text x="{x:.1f}" y="{low + 16}" text-anchor="middle">{power:g}</text>'
        for power in _powers(self._bottom, self._top):
            y = self.y(power)
            yield (
                f'<line x1="{_MARGIN}" y1="{y:.1f}" x2="{_WIDTH - _MARGIN}" y2="{y:.1f}" '
                'stroke="#ddd"/>'
            )
            yield f'<text x="{_MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{power:g}</text>'
        yield f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 14}" text-anchor="middle">FLOP / byte</text>'
        middle = _HEIGHT / 2
        yield f'<text x="14" y="{middle}" transform="rotate(-90 14 {middle})">GFLOP/s</text>'


def _powers(low: float, high: float) -> list[float]:
    return [10.0**n for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
