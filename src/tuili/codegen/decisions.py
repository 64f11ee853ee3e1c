"""What an artifact tells of its measured decisions: a count in its options, and a file of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tuili.lower.choice import Decision

DECISIONS_FILE = "decisions.json"


class Told(msgspec.Struct, frozen=True):
    """One decision, and the nodes that it is about."""

    problem: str
    chosen: str
    why: str
    instead_of: str  # what the cost model takes; "" where the clock agrees with it
    nodes: list[str]

    def __str__(self) -> str:
        """For people."""
        where = self.nodes[0] + (f" and {len(self.nodes) - 1} more" if self.nodes[1:] else "")
        return f"{self.problem}: {self.chosen}; {self.why} ({where})"


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode: Final = msgspec.json.Decoder(list[Told]).decode


def tell(decisions: Mapping[str, Decision]) -> list[Told]:
    """The measured decisions of a program, each problem once, in the order of the run."""
    nodes: dict[Decision, list[str]] = {}
    for label, decision in decisions.items():
        if decision.why:
            nodes.setdefault(decision, []).append(label)
    return [
        Told(
            problem=each.problem,
            chosen=each.chosen,
            why=each.why,
            instead_of="" if each.chosen == each.names[0] else each.names[0],
            nodes=labels,
        )
        for each, labels in nodes.items()
    ]


def decisions_files(decisions: Mapping[str, Decision]) -> dict[str, bytes]:
    """The file of an artifact; none where nothing was measured."""
    told = tell(decisions)
    if not told:
        return {}
    text = msgspec.json.format(msgspec.json.encode(told, order="deterministic"), indent=1)
    return {DECISIONS_FILE: text + b"\n"}


def read_decisions(text: bytes) -> list[Told]:
    """What `decisions_files` wrote."""
    return _decode(text)


def tuned_option(decisions: Mapping[str, Decision]) -> dict[str, str]:
    """What the manifest says; nothing where nothing was measured."""
    measured = [each for each in decisions.values() if each.why]
    if not measured:
        return {}
    changed = sum(each.chosen != each.names[0] for each in measured)
    return {
        "tuned": f"{len(measured)} of {len(decisions)} choices were measured, "
        f"{changed} are not the cost model's"
    }
