"""Controller: the next thing to do about a roll-out, from where it stands and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuili.server.rollout.history import Rollout
from tuili.server.rollout.metrics import Pair, metric_of
from tuili.server.rollout.plan import STABLE
from tuili.server.rollout.states import JUDGED, State
from tuili.server.rollout.tally import Tally
from tuili.server.rollout.verdict import Outcome, Seen, Verdict, judge

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Do:
    """An event to write into the journal, with its reason and numbers."""

    event: str
    why: str
    numbers: Json


def verdicts(rollout: Rollout, seen: Seen) -> dict[str, Verdict]:
    """What the numbers say of every candidate that is still in."""
    if rollout.state not in JUDGED:
        return {}
    return {name: judge(rollout.plan, rollout.step, name, seen) for name in rollout.candidates()}


def next_event(rollout: Rollout, found: Mapping[str, Verdict], seen: Seen) -> Do | None:
    """The event that the verdicts call for; None: wait.

    A paused or holding roll-out still protects its clients: it may roll back, and nothing else.
    """
    bad = {name: v for name, v in found.items() if v.outcome is Outcome.ROLLBACK}
    if bad and len(bad) == len(rollout.candidates()):
        name, verdict = next(iter(bad.items()))
        return Do("rolling_back", verdict.text(), verdict.numbers | {"candidate": name})
    if bad and rollout.state is not State.PAUSED:
        name, verdict = next(iter(bad.items()))
        return Do("dropped", verdict.text(), verdict.numbers | {"candidate": name})
    if rollout.state is not State.RUNNING or not found:
        return None
    held = [v for v in found.values() if v.outcome is Outcome.HOLD]
    if held:
        return Do("held", held[0].text(), held[0].numbers)
    if all(v.outcome is Outcome.PROMOTE for v in found.values()):
        winner = _best(rollout, seen)
        return Do("promoting", found[winner].text(), found[winner].numbers | {"candidate": winner})
    if all(v.step_done or v.outcome is Outcome.PROMOTE for v in found.values()):
        text = "; ".join(f"{name}: {v.text()}" for name, v in found.items())
        return Do("step", text, {"step": rollout.step + 1})
    return None


def _best(rollout: Rollout, seen: Seen) -> str:
    """Among good candidates, the one with the best objective."""
    names = list(rollout.candidates())
    if len(names) == 1:
        return names[0]
    metric = metric_of(rollout.plan.objective)
    stable = seen.tallies.get(STABLE) or Tally()

    def effect(name: str) -> float:
        return metric.interval(Pair(stable, seen.tallies.get(name) or Tally()), 3.0).effect

    return min(names, key=effect)
