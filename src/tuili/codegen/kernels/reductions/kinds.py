"""What reductions do with an element and a total, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A reduction: its row function, step over a total, first total, and what ends it."""

    row: str
    step: str  # {t} total, {x} element, {p} prefix
    start: str = "0"
    end: str = "{t}"

    @property
    def first(self) -> str:
        """The first total as a float."""
        return self.start if "INF" in self.start else f"{self.start}.0f"

    @property
    def join(self) -> str:
        """How totals are joined: as elements are, but for what has been done to those."""
        return "{t} + {x}" if self.row in ("abs", "squares") else self.step


KINDS: dict[str, Kind] = {
    "ReduceSum": Kind("sum", "{t} + {x}"),
    "ReduceMean": Kind("sum", "{t} + {x}", end="{t} / {count}"),
    "ReduceL1": Kind("abs", "{t} + {p}abs({x})"),
    "ReduceL2": Kind("squares", "{x} * {x} + {t}", end="{p}sqrt({t})"),
    "ReduceSumSquare": Kind("squares", "{x} * {x} + {t}"),
    "ReduceLogSum": Kind("sum", "{t} + {x}", end="{p}log({t})"),
    "ReduceProd": Kind("product", "{t} * {x}", start="1"),
    "ReduceMax": Kind("max", "{p}maximum({x}, {t})", start="-INFINITY"),
    "ReduceMin": Kind("min", "{p}minimum({x}, {t})", start="INFINITY"),
}
