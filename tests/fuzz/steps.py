"""Every step of the generator, and the operators that have none, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from tests.fuzz import contrib, control, elementwise, movement, neural, quantized, residual
from tests.fuzz.part import Discard, Part, Source

Steps: TypeAlias = Mapping[str, Callable[[Part], None]]

STEPS: Steps = {
    **elementwise.STEPS,
    **movement.STEPS,
    **neural.STEPS,
    **quantized.STEPS,
    **contrib.STEPS,
    **residual.STEPS,
    **control.STEPS,
}

# What `--steps` narrows a run to; together with all others these come up too seldom.
GROUPS: Mapping[str, Steps] = {
    "all": STEPS,
    "quantized": {**residual.STEPS, **quantized.STEPS},
    "control": {
        **control.STEPS,
        "Add": elementwise.STEPS["Add"],
        "Where": elementwise.STEPS["Where"],
    },
}

MOST_NODES = 7
_TRIES = 60


def build(source: Source, prefix: str = "", steps: Steps = STEPS) -> Part:
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
    for node in part.graph.nodes:
        spare = [value for value in node.outputs[1:] if not value.uses and value in kept]
        if node.outputs[0] in kept and spare and part.chance(30):
            kept.remove(part.one(spare))
    part.graph.set_outputs(kept)
