"""Pool: the numbers of all servers about one step, as one; and how long a candidate was silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tuili.server.control.split import Split
from tuili.server.rollout.dispersion import Dispersion
from tuili.server.rollout.history import Rollout
from tuili.server.rollout.plan import STABLE
from tuili.server.rollout.tally import Tally
from tuili.server.rollout.verdict import Seen

Json = dict[str, Any]
# So many answers of the candidate must be missing before silence means something.
_MISSED: Final = 20


def topic_of(rollout: Rollout) -> str:
    """What tallies are filed under: numbers of another round of a step never mix."""
    return f"{rollout.name}#{rollout.round}"


def body_of(split: Split) -> Json:
    """What this server saw."""
    return {
        "seconds": split.seconds,
        "tallies": {name: tally.json() for name, tally in split.tallies.items()},
        "dispersion": {
            name: {metric: each.json() for metric, each in slices.dispersion.items()}
            for name, slices in split.slices.items()
        },
    }


def failure_body(rollout: Rollout, candidate: str, note: str) -> Json:
    """What a server says that could not load a candidate: that counts as a crash."""
    tally = Tally(crashes=1, note=note)
    return {"seconds": 0, "tallies": {candidate: tally.json()}, "dispersion": {}}


class Pool:
    """Everything known of one round of one roll-out; made anew for each."""

    def __init__(self, rollout: Rollout, now: float) -> None:
        self.round = rollout.round
        self.began = now
        self._answered: dict[str, tuple[int, int]] = {}
        self._since: dict[str, float] = {}

    def seen(
        self, rollout: Rollout, split: Split, bodies: Mapping[str, Json], me: str, now: float
    ) -> Seen:
        """The pooled numbers; this server's own are taken fresh."""
        tallies = {name: Tally() for name in split.numbers}
        dispersion = {name: {m: Dispersion() for m in slices.dispersion}
                      for name, slices in split.slices.items()}  # fmt: skip
        seconds = 0
        for server, body in (*bodies.items(), (me, body_of(split))):
            if server == me and body is bodies.get(me):
                continue
            seconds = max(seconds, int(body["seconds"]))
            for name, found in body["tallies"].items():
                if name in tallies:
                    tallies[name].add(Tally.from_json(found))
            for name, metrics in body["dispersion"].items():
                for metric, numbers in metrics.items():
                    dispersion[name][metric].add(Dispersion.from_json(numbers))
        step = rollout.plan.steps[rollout.step]
        return Seen(
            tallies,
            {name: {m: d.factor() for m, d in each.items()} for name, each in dispersion.items()},
            seconds,
            now - self.began,
            {name: self._quiet_s(rollout, name, tallies, now) for name in rollout.candidates()},
            split.router.shares() if 0 < step.weight < 100 else {},
        )

    def _quiet_s(
        self, rollout: Rollout, name: str, tallies: Mapping[str, Tally], now: float
    ) -> float:
        """How long the candidate has answered nothing although it should have had requests."""
        step = rollout.plan.steps[rollout.step]
        mine = tallies[name].requests + tallies[name].compared
        others = tallies[STABLE].requests
        before = self._answered.get(name)
        if before is None or mine != before[0]:
            self._answered[name] = (mine, others)
            self._since[name] = now
            return 0.0
        share = max(step.weight, step.shadow) / 100
        missed = (others - before[1]) * share / max(1 - step.weight / 100, 1e-3)
        return now - self._since[name] if missed >= _MISSED else 0.0
