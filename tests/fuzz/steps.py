"""Every step of the generator, and the operators that have none, with the reason."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz import contrib, elementwise, movement, neural, quantized
from tests.fuzz.part import Discard, Part, Source

STEPS: dict[str, Callable[[Part], None]] = {
    **elementwise.STEPS,
    **movement.STEPS,
    **neural.STEPS,
    **quantized.STEPS,
    **contrib.STEPS,
}

MOST_NODES = 7
_TRIES = 60


def build(
    source: Source, prefix: str = "", steps: dict[str, Callable[[Part], None]] = STEPS
) -> Part:
    """A random graph of a few steps; its outputs are what nobody reads, and some more."""
    part = Part(source, prefix)
    # Half of the graphs have only fixed sizes; in the others some or all axes are open.
    part.opened = part.one((0.0, 0.0, 0.5, 1.0))
    names = list(steps)
    wanted = 1 + part.below(MOST_NODES)
    for _ in range(_TRIES):
        if len(part.graph.nodes) >= wanted:
            break
        try:
            steps[part.one(names)](part)
        except Discard:
            continue
    _choose_outputs(part)
    return part


def _choose_outputs(part: Part) -> None:
    made = [value for node in part.graph.nodes for value in node.outputs]
    if not made:
        raise Discard("no step fitted")
    kept = [value for value in made if not value.uses or part.chance(15)]
    part.graph.set_outputs(kept)
