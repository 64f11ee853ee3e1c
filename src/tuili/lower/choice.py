"""The chooser: a problem, the few plans that solve it, and a pick that says which one is taken.

    problem     what is computed, as one line of text; other models meet the same one
    plans       ways to compute it, by name; the cost model's first
    pick        asked for one of the names, and why; "" is the cost model's word

Kernels never look at clocks or files: whoever compiles hands them a pick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from tuili.tensors import Dim

Plan = TypeVar("Plan")

Pick: TypeAlias = "Callable[[str, Sequence[str]], tuple[str, str]]"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for a node."""

    problem: str
    names: tuple[str, ...]  # of all plans, the cost model's first
    chosen: str
    why: str = ""  # empty: by the cost model


def by_cost(problem: str, names: Sequence[str]) -> tuple[str, str]:
    """The cost model's word."""
    return names[0], ""


def decide(problem: str, plans: Mapping[str, Plan], pick: Pick) -> tuple[Decision, Plan]:
    """The plan that is picked."""
    names = tuple(plans)
    chosen, why = pick(problem, names)
    return Decision(problem, names, chosen, why), plans[chosen]


def dims_text(*dims: Dim) -> str:
    """Dims as a problem spells them: the names of open dims differ between models, so `?`."""
    return "x".join(str(dim) if isinstance(dim, int) else "?" for dim in dims)
