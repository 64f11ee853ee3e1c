"""Winograd along a line for windows of any length: F(m, r) by points, long windows cut into parts.

Eight or ten products make m = 9 - r or 11 - r outputs of r taps each. Points come in pairs +-p
beside 0 and infinity, so that even and odd inputs are summed apart and shared by a pair. A window
of k taps is cut into parts of r <= k taps, which count as further input channels.

Errors stay small: of 256 channels, beside direct sums' 5e-6 and 8e-6 of the deviation, F(4, 7) for
7 taps errs by 1.5e-5, and F(5, 6) for 11 by 2.1e-5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from tuili.codegen.kernels.conv.winograd_transforms import F2, F4, Winograd

# The positive points with the least errors of a coarse grid; and an estimate, not measured, of what
# the transforms take beside a cycle for each load, sum and store, as their numbers leave registers.
PAIRS = {8: ((0.5, 1.0, 2.0), 1.2), 10: ((0.45, 0.8, 1.25, 2.5), 1.5)}
MOST_TAPS = 64
FEWEST_OUTPUTS = 2


def line_ways(taps: int) -> tuple[Winograd, ...]:
    """The ways to compute a window of `taps` of stride 1, in no order."""
    if not 3 <= taps <= MOST_TAPS:
        return ()
    known = (F2, F4) if taps == 3 else ()
    return (*known, *(line_transform(*way) for way in _ways(taps)))


def _ways(taps: int) -> Iterator[tuple[int, int]]:
    for products in PAIRS:
        parts = {-(-taps // count) for count in range(1, taps // 3 + 1)}
        yield from (
            (products + 1 - part, part)
            for part in sorted(parts)
            if part >= 3 and products + 1 - part >= FEWEST_OUTPUTS
        )


@cache
def line_transform(outputs: int, taps: int) -> Winograd:
    """F(outputs, taps) of eight or ten products."""
    pairs, effort = PAIRS[outputs + taps - 1]
    points = (0.0, *(sign * point for point in pairs for sign in (1, -1)))
    return Winograd(
        outputs, points, _input(pairs), _output(pairs, outputs), effort=effort, taps=taps
    )


def _input(pairs: tuple[float, ...]) -> str:
    """t[i] = sum over k of the k-th factor of M(x) / (x - p_i), d[k]; M(x) itself at infinity."""
    whole, last = _factors(pairs), 2 * len(pairs) + 1
    lines = [
        f"t[0] = {_sum((c, f'd[{2 * k}]') for k, c in enumerate(whole))};",
        f"t[{last}] = {_sum((c, f'd[{2 * k + 1}]') for k, c in enumerate(whole))};",
    ]
    for index, point in enumerate(pairs):
        rest = _factors((*pairs[:index], *pairs[index + 1 :]))
        even = _sum((c, f"d[{2 * k + 2}]") for k, c in enumerate(rest))
        odd = _sum((c, f"d[{2 * k + 1}]") for k, c in enumerate(rest))
        lines += [
            f"const vf e{index} = {even}, o{index} = {odd};",
            f"t[{2 * index + 1}] = o{index} * {_number(point)} + e{index};",
            f"t[{2 * index + 2}] = o{index} * {_number(-point)} + e{index};",
        ]
    return "\n".join(lines)


def _output(pairs: tuple[float, ...], outputs: int) -> str:
    """r[k] = sum over i of p_i^k m[i]; the last has the product at infinity as well."""
    lines: list[str] = []
    for index in range(len(pairs)):
        both = f"m[{2 * index + 1}]", f"m[{2 * index + 2}]"
        lines.append(f"const vf s{index} = {' + '.join(both)}, d{index} = {' - '.join(both)};")
    for k in range(outputs):
        terms = [(point**k, f"{'d' if k % 2 else 's'}{i}") for i, point in enumerate(pairs)]
        alone = [(1.0, "m[0]")] if k == 0 else []
        end = [(1.0, f"m[{2 * len(pairs) + 1}]")] if k == outputs - 1 else []
        lines.append(f"r[{k}] = {_sum([*alone, *terms, *end])};")
    return "\n".join(lines)


def _factors(pairs: tuple[float, ...]) -> list[float]:
    """The product of all (x^2 - p^2), by powers of x^2 from 0 on."""
    return [float(factor) for factor in np.poly([point**2 for point in pairs])[::-1]]


def _sum(terms: Iterable[tuple[float, str]]) -> str:
    """A chain of multiply-adds that begins with what needs no factor."""
    given = sorted(terms, key=lambda term: term[0] != 1)
    text = given[0][1] if given[0][0] == 1 else f"{given[0][1]} * {_number(given[0][0])}"
    for factor, name in given[1:]:
        text = f"{name} + ({text})" if factor == 1 else f"{name} * {_number(factor)} + ({text})"
    return text


def _number(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
