"""From decisions and times to entries of a record: what is asked, and what the answers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuili.codegen.tuning import Times
from tuili.lower.choice import Decision, Pick


@dataclass(frozen=True, slots=True)
class Question:
    """A problem of a model whose plans are to be timed."""

    problem: str
    names: tuple[str, ...]
    nodes: tuple[str, ...]  # that meet it


def questions(decisions: Mapping[str, Decision], known: Times) -> list[Question]:
    """The problems some plan of which has no time yet, each once."""
    nodes: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for label, decision in decisions.items():
        if known.lacks(decision.problem, decision.names):
            nodes.setdefault((decision.problem, decision.names), []).append(label)
    return [Question(problem, names, tuple(labels)) for (problem, names), labels in nodes.items()]


def variant(place: int, asked: Iterable[Question]) -> Pick:
    """The pick of one variant of the model: of every problem asked about the plan at `place`.

    Where there are fewer, and for what is not asked, it is the cost model's.
    """
    problems = {question.problem for question in asked}

    def pick(problem: str, names: Sequence[str]) -> tuple[str, str]:
        taken = place if problem in problems and place < len(names) else 0
        return names[taken], ""

    return pick


def answers(
    asked: Iterable[Question], times: Sequence[Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """For each problem the nanoseconds of its plans, the mean of the nodes that meet it.

    `times` holds, for each variant, the nanoseconds of each node. A problem that a run does not
    reach, such as one in a branch not taken, has no answer.
    """
    found: dict[str, dict[str, int]] = {}
    for question in asked:
        spent = {
            name: [times[place].get(node, 0) for node in question.nodes]
            for place, name in enumerate(question.names)
        }
        if all(min(each) > 0 for each in spent.values()):
            found[question.problem] = {
                name: max(1, round(sum(each) / len(each))) for name, each in spent.items()
            }
    return found
