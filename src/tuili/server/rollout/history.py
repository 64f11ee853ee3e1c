"""History: the journal's entries, and the world that follows from them.

The world is a fold over the journal and nothing else: a server that restarts anywhere reads the
same entries and comes to the same pointers. Several servers that read one journal agree.

An entry that this tuili cannot read (a newer one wrote it, or it is damaged) costs its roll-out and
nothing else. Of a roll-out whose plan is lost the state is followed all the same, so that its end
moves the pointer, no second one is begun beside it, and an operator can abort it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tuili.errors import InvalidArgument, NotFound, TuiliError
from tuili.server.rollout.plan import STABLE, Plan, parse
from tuili.server.rollout.states import EVENTS, FINAL, NEXT, State, after

Json = dict[str, Any]
# Events of a model rather than of a roll-out; "pointer" may be either.
MODEL_EVENTS: Final = frozenset(("pointer", "label", "unlabel"))
# The only number of an entry whose numbers cannot be read: why.
DAMAGED: Final = "damaged"
# What ends a roll-out wherever it stands, if its way there cannot be read.
_ENDS: Final = {"pointer": State.PROMOTED, "aborted": State.ABORTED}
_KNOWN: Final = MODEL_EVENTS | EVENTS | {"created"}


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

    def __str__(self) -> str:
        of = f" of roll-out {self.rollout!r}" if self.rollout else ""
        return f"entry {self.seq} (model {self.model!r}, {self.event!r}{of}, by {self.who})"

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


@dataclass(slots=True)
class Lost:
    """A roll-out whose plan cannot be read: what is known of it all the same."""

    model: str
    state: State
    why: str

    def after(self, entry: Entry) -> State:
        """The state after an event: the end moves the pointer, and nobody but people acts."""
        if self.state not in FINAL and entry.event in _ENDS:
            return _ENDS[entry.event]
        return after(self.state, entry.event, entry.rollout)


class World:
    """Everything that is decided, as of the last entry read."""

    def __init__(self) -> None:
        self.models: dict[str, ModelState] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.lost: dict[str, Lost] = {}
        # What of the journal cannot be read, and why, in words.
        self.unreadable: list[str] = []
        self.seq = 0

    def model(self, name: str) -> ModelState:
        """A model's state, empty if nothing was ever decided."""
        return self.models.setdefault(name, ModelState())

    def rollout(self, name: str) -> Rollout:
        """A roll-out by name; NotFound."""
        if name in self.lost:
            raise InvalidArgument(
                f"{self.lost[name].why}; it can only be aborted: tuili rollout abort {name}"
            )
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
            for name, lost in self.lost.items():
                if lost.model == entry.model and lost.state not in FINAL:
                    raise InvalidArgument(
                        f"model {entry.model!r} has roll-out {name!r} ({lost.state.value}), and "
                        f"{lost.why}; abort it first: tuili rollout abort {name}"
                    )
            if entry.rollout in self.rollouts or entry.rollout in self.lost:
                raise InvalidArgument(f"a roll-out called {entry.rollout!r} is in the journal")
        elif entry.rollout:
            lost = self.lost.get(entry.rollout)
            if lost is None:
                after(self.rollout(entry.rollout).state, entry.event, entry.rollout)
            else:
                lost.after(entry)
        elif entry.event not in MODEL_EVENTS:
            raise InvalidArgument(f"event {entry.event!r} needs a roll-out")

    def apply(self, entry: Entry) -> None:
        """Take an entry in; one that cannot happen (a race that was lost) changes nothing."""
        self.seq = entry.seq
        model = self.model(entry.model)
        model.last_seq = entry.seq
        try:
            _check_form(entry)
            try:
                self.check(entry)
            except (InvalidArgument, NotFound):
                return
            self._take(entry, model)
        except (TuiliError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            self._cannot_read(entry, error)

    def _take(self, entry: Entry, model: ModelState) -> None:
        if entry.event == "created":
            self._create(entry, model)
            return
        if entry.event == "pointer":
            _point(model, int(entry.numbers["version"]))
        elif entry.event == "label":
            model.labels[str(entry.numbers["label"])] = int(entry.numbers["version"])
        elif entry.event == "unlabel":
            model.labels.pop(str(entry.numbers["label"]), None)
        if entry.rollout in self.lost:
            lost = self.lost[entry.rollout]
            lost.state = lost.after(entry)
        elif entry.rollout:
            self._advance(self.rollouts[entry.rollout], entry)

    def _create(self, entry: Entry, model: ModelState) -> None:
        stable = int(entry.numbers["stable"])
        if model.pointer is None:
            # From here on "the newest" is no longer what answers.
            _point(model, stable)
        self.rollouts[entry.rollout] = Rollout(
            entry.rollout, parse(entry.numbers["plan"]), State.SCHEDULED, stable,
            entry.who, entry.at, why=entry.why,
        )  # fmt: skip

    def _cannot_read(self, entry: Entry, error: Exception) -> None:
        """Remember what is wrong; the entry changes nothing else."""
        plain = isinstance(error, TuiliError | ValueError)
        told = str(error) if plain else f"{type(error).__name__}: {error}"
        told = f"{entry} of the journal cannot be read: {told}"
        self.unreadable.append(told)
        if entry.event == "created":
            self.lost[entry.rollout] = Lost(entry.model, State.SCHEDULED, told)
        elif entry.rollout in self.rollouts:
            lost = self.rollouts.pop(entry.rollout)
            state = NEXT.get((lost.state, entry.event), lost.state)
            self.lost[entry.rollout] = Lost(entry.model, state, told)

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


def _check_form(entry: Entry) -> None:
    if DAMAGED in entry.numbers:
        raise ValueError(entry.numbers[DAMAGED])
    if entry.event not in _KNOWN:
        raise ValueError(f"event {entry.event!r} is not known here")


def _point(model: ModelState, version: int) -> None:
    if model.pointer != version:
        model.previous = model.pointer
    model.pointer = version
    model.labels[STABLE] = version
