"""History: the journal's entries, and the world that follows from them.

The world is a fold over the journal and nothing else: a server that restarts anywhere reads the
same entries and comes to the same pointers. Several servers that read one journal agree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tuili.errors import InvalidArgument, NotFound
from tuili.server.rollout.plan import STABLE, Plan, parse
from tuili.server.rollout.states import FINAL, State, after

Json = dict[str, Any]
# Events of a model rather than of a roll-out; "pointer" may be either.
MODEL_EVENTS: Final = frozenset(("pointer", "label", "unlabel"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: who did what to which model, when, why, by which numbers.

    `at` is seconds since the epoch, for people only: no rule looks at it. `digest` is of the
    version that the entry is about. `seq` and `chain` are given by the store.
    """

    model: str
    event: str
    who: str
    why: str = ""
    rollout: str = ""
    numbers: Json = field(default_factory=dict[str, Any])
    digest: str = ""
    server: str = ""
    at: float = 0.0
    seq: int = 0
    chain: str = ""

    def json(self) -> Json:
        """All fields."""
        return {name: getattr(self, name) for name in self.__slots__}

    def chained(self, before: str, seq: int) -> Entry:
        """With its number and a hash over itself and all that came before it."""
        body = self.json() | {"seq": seq, "chain": ""}
        text = before + json.dumps(body, sort_keys=True, separators=(",", ":"))
        return replace(self, seq=seq, chain=hashlib.sha256(text.encode()).hexdigest())


@dataclass(slots=True)
class ModelState:
    """What is decided of a model: the version that answers, the one before it, its labels."""

    pointer: int | None = None
    previous: int | None = None
    labels: dict[str, int] = field(default_factory=dict[str, int])
    last_seq: int = 0


@dataclass(slots=True)
class Rollout:
    """A roll-out and where it stands."""

    name: str
    plan: Plan
    state: State
    stable: int
    who: str
    created: float
    step: int = 0
    # How often the present step began anew: numbers of before do not count.
    round: int = 0
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    why: str = ""
    numbers: Json = field(default_factory=dict[str, Any])
    winner: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more can happen."""
        return self.state in FINAL

    def candidates(self) -> dict[str, int]:
        """The candidates that are still in."""
        return {k: v for k, v in self.plan.candidates.items() if k not in self.dropped}

    def weights(self) -> dict[str, float]:
        """Percent of traffic by candidate."""
        return dict.fromkeys(self.candidates(), self.plan.steps[self.step].weight)

    def json(self) -> Json:
        """What an operator sees."""
        step = self.plan.steps[self.step]
        return {
            "name": self.name,
            "model": self.plan.model,
            "state": self.state.value,
            "stable": self.stable,
            "candidates": dict(self.plan.candidates),
            "dropped": dict(self.dropped),
            "step": self.step,
            "steps": len(self.plan.steps),
            "weights": {} if self.over else self.weights(),
            "shadow": 0.0 if self.over else step.shadow,
            "who": self.who,
            "created": self.created,
            "why": self.why,
            "numbers": self.numbers,
        }


class World:
    """Everything that is decided, as of the last entry read."""

    def __init__(self) -> None:
        self.models: dict[str, ModelState] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.seq = 0

    def model(self, name: str) -> ModelState:
        """A model's state, empty if nothing was ever decided."""
        return self.models.setdefault(name, ModelState())

    def rollout(self, name: str) -> Rollout:
        """A roll-out by name; NotFound."""
        if name not in self.rollouts:
            known = ", ".join(self.rollouts) or "there is none"
            raise NotFound(f"roll-out {name!r} is not known; known: {known}")
        return self.rollouts[name]

    def active(self, model: str) -> Rollout | None:
        """The model's roll-out that is not over."""
        for rollout in self.rollouts.values():
            if rollout.plan.model == model and not rollout.over:
                return rollout
        return None

    def check(self, entry: Entry) -> None:
        """Refuse an entry that cannot happen now."""
        if entry.event == "created":
            active = self.active(entry.model)
            if active is not None:
                raise InvalidArgument(
                    f"model {entry.model!r} has roll-out {active.name!r} "
                    f"({active.state.value}, by {active.who}): one at a time, abort it first"
                )
            if entry.rollout in self.rollouts:
                raise InvalidArgument(f"a roll-out called {entry.rollout!r} is in the journal")
        elif entry.rollout:
            rollout = self.rollout(entry.rollout)
            after(rollout.state, entry.event, rollout.name)
        elif entry.event not in MODEL_EVENTS:
            raise InvalidArgument(f"event {entry.event!r} needs a roll-out")

    def apply(self, entry: Entry) -> None:
        """Take an entry in; one that cannot happen (a race that was lost) changes nothing."""
        self.seq = entry.seq
        model = self.model(entry.model)
        model.last_seq = entry.seq
        try:
            self.check(entry)
        except (InvalidArgument, NotFound):
            return
        if entry.event == "created":
            plan = parse(entry.numbers["plan"])
            self.rollouts[entry.rollout] = Rollout(
                entry.rollout, plan, State.SCHEDULED, int(entry.numbers["stable"]),
                entry.who, entry.at, why=entry.why,
            )  # fmt: skip
            if model.pointer is None:
                # From here on "the newest" is no longer what answers.
                _point(model, int(entry.numbers["stable"]))
            return
        if entry.event == "pointer":
            _point(model, int(entry.numbers["version"]))
        elif entry.event == "label":
            model.labels[str(entry.numbers["label"])] = int(entry.numbers["version"])
        elif entry.event == "unlabel":
            model.labels.pop(str(entry.numbers["label"]), None)
        if entry.rollout:
            self._advance(self.rollouts[entry.rollout], entry)

    def _advance(self, rollout: Rollout, entry: Entry) -> None:
        rollout.state = after(rollout.state, entry.event, rollout.name)
        rollout.why = entry.why or rollout.why
        rollout.numbers = entry.numbers or rollout.numbers
        if entry.event == "step":
            rollout.step = int(entry.numbers["step"])
        if entry.event in ("step", "resumed"):
            rollout.round += 1
        elif entry.event == "dropped":
            rollout.dropped[str(entry.numbers["candidate"])] = entry.why
        elif entry.event == "promoting":
            rollout.winner = str(entry.numbers["candidate"])


def _point(model: ModelState, version: int) -> None:
    if model.pointer != version:
        model.previous = model.pointer
    model.pointer = version
    model.labels[STABLE] = version
