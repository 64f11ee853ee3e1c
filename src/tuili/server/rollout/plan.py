"""Plan: what an operator asked for, checked; the content of a roll-out's YAML or JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from tuili.errors import InvalidArgument
from tuili.server.rollout.metrics import metric_of

Kind = Literal["canary", "ab", "blue_green"]
OnInconclusive = Literal["hold", "rollback", "promote"]
Require = Literal["proof", "no_harm"]
Hook = Literal["before_start", "before_step", "before_promote", "event"]

STABLE: Final = "stable"
CANDIDATE: Final = "candidate"
# Nobody is left to compare with: it ends when nothing went wrong for a while.
_BLUE_GREEN_STEPS: Final = ({"weight": 100, "require": "no_harm"},)
_DEFAULT_METRICS: Final = ("error_rate", "latency_p50", "latency_p99")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Nothing unknown, nothing changed later."""


class Step(_Strict, frozen=True):
    """One step: the percent of traffic of each candidate, or of requests that are shadowed.

    `proof`: the step ends when every metric is surely within its margin; `no_harm`: it is enough
    that nothing is surely worse after the minimum time and samples.
    """

    weight: float = 0.0
    shadow: float = 0.0
    min_time_s: float = 30.0
    min_samples: int = 100
    max_time_s: float = 3600.0
    require: Require | None = None


class Target(_Strict, frozen=True):
    """What a metric has to keep; None: the default of its kind."""

    tolerance: float | None = None
    margin: float | None = None
    # Whether promotion needs it to be within the margin; otherwise it can only stop a roll-out.
    gate: bool = True


class Guards(_Strict, frozen=True):
    """Limits that act at once, before any statistics; 0 switches a guard off."""

    crashes: int = 1
    nans: int = 1
    error_burst: int = 6  # of the last twenty requests
    silence_s: float = 120.0


def _default_metrics() -> dict[str, Target]:
    return {name: Target() for name in _DEFAULT_METRICS}


class Rule(_Strict, frozen=True):
    """Requests that go to a variant whatever the weights; all conditions that are given must hold.

    `header` and `parameter` are "name=value" (or "name": present).
    """

    variant: str
    header: str = ""
    parameter: str = ""
    cidr: tuple[str, ...] = ()
    country: tuple[str, ...] = ()


class Routing(_Strict, frozen=True):
    """How requests find their variant; the order is: asked for, rules, sequence, user, random."""

    user: str = "header:x-user-id"  # or parameter:NAME
    variant_header: str = "x-tuili-variant"
    variant_parameter: str = "tuili_variant"
    country_header: str = "x-country"
    # The header in which a trusted proxy tells the client's address; "" for the peer itself.
    address_header: str = ""
    salt: str = ""
    rules: tuple[Rule, ...] = ()


class Webhook(_Strict, frozen=True):
    """An HTTP endpoint that is told, or (all but `event`) asked: any status but 2xx holds."""

    url: str
    when: Hook
    timeout_s: float = 5.0


class Capture(_Strict, frozen=True):
    """Differing shadow answers that are kept for a person to look at."""

    folder: str = ""
    most: int = 20


class Comparison(_Strict, frozen=True):
    """When a shadowed answer counts as differing: another top class, or numbers too far off."""

    top1: bool = True
    rtol: float = 0.05
    atol: float = 1e-3
    values: bool = False  # whether numbers that are off count as well
    sample: float = 1.0
    # Shadow requests at once, and how many requests may wait before shadows are dropped.
    max_inflight: int = 2
    shed_above: int = 8


class Plan(_Strict, frozen=True):
    """A roll-out of one model."""

    model: str
    candidates: dict[str, int]
    name: str = ""
    stable: int | None = None
    kind: Kind = "canary"
    steps: tuple[Step, ...] = (
        Step(weight=5),
        Step(weight=25),
        Step(weight=50),
    )
    metrics: dict[str, Target] = msgspec.field(default_factory=_default_metrics)
    guards: Guards = Guards()
    routing: Routing = Routing()
    comparison: Comparison = Comparison()
    capture: Capture = Capture()
    webhooks: tuple[Webhook, ...] = ()
    alpha: float = 0.05
    on_inconclusive: OnInconclusive = "hold"
    # An answer that fails on a candidate by the server's fault is asked of the stable variant.
    fallback: bool = True
    allow_signature_change: bool = False
    rollback_window_s: float = 600.0
    objective: str = "latency_p50"  # among several good candidates, the best by this wins
    dry_run: bool = False
    # Seconds since the epoch; documents may have a time of ISO 8601 as well, UTC unless it says.
    start_at: float | None = None

    @property
    def last_step(self) -> int:
        """The index of the step whose end is the promotion."""
        return len(self.steps) - 1

    def metrics_at(self, step: int) -> dict[str, Target]:
        """What a step is judged by: while it only shadows, that is how answers agree."""
        if self.steps[step].weight or not self.steps[step].shadow:
            return {name: target for name, target in self.metrics.items() if name != "disagreement"}
        return {"disagreement": self.metrics.get("disagreement", Target())}

    def required_at(self, step: int) -> Require:
        """What ends a step well."""
        wanted = self.steps[step].require
        shadowing = not self.steps[step].weight and self.steps[step].shadow > 0
        return wanted or ("proof" if shadowing or step == self.last_step else "no_harm")

    def tests(self) -> int:
        """How many tests share `alpha`."""
        return sum(len(self.metrics_at(at)) for at in range(len(self.steps))) * len(self.candidates)


def parse(document: Any) -> Plan:
    """The plan in a decoded YAML or JSON document; InvalidArgument says what is wrong with it."""
    if isinstance(document, dict):
        document = dict(document)
        if "candidate" in document:
            document["candidates"] = {CANDIDATE: document.pop("candidate")}
        if document.get("kind") == "blue_green":
            document.setdefault("steps", _BLUE_GREEN_STEPS)
        if isinstance(document.get("start_at"), str | datetime):
            document["start_at"] = _moment(document["start_at"])
    try:
        plan = msgspec.convert(document, Plan)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"the roll-out's plan: {error}") from error
    check(plan)
    return plan


def _moment(given: str | datetime) -> float:
    """Seconds since the epoch of a time that people wrote."""
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as error:
        raise InvalidArgument(f"the roll-out's plan: start_at {given!r}: {error}") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check(plan: Plan) -> None:
    """Refuse what no type tells."""
    for wrong in (_wrong_candidates, _wrong_steps, _wrong_metrics, _wrong_rules):
        text = wrong(plan)
        if text:
            raise InvalidArgument(f"the roll-out's plan: {text}")


def _wrong_candidates(plan: Plan) -> str:
    versions = list(plan.candidates.values())
    if not versions:
        return "it names no candidate"
    if STABLE in plan.candidates:
        return f"no candidate may be called {STABLE!r}"
    if plan.kind != "ab" and len(versions) > 1:
        return f"a {plan.kind} roll-out has one candidate, got {len(versions)}; use kind ab"
    if len(set(versions)) < len(versions):
        return "two candidates are of the same version"
    if any(version < 1 for version in versions):
        return "versions are positive numbers"
    return ""


def _wrong_metrics(plan: Plan) -> str:
    if not 0 < plan.alpha < 0.5:
        return f"alpha must be between 0 and 0.5, got {plan.alpha}"
    if not plan.metrics:
        return "it has no metrics, so that nothing could be decided"
    for name, target in plan.metrics.items():
        metric = metric_of(name)
        tolerance = metric.tolerance if target.tolerance is None else target.tolerance
        margin = metric.margin if target.margin is None else target.margin
        if margin <= tolerance:
            return f"{name}: the margin {margin:g} must be above the tolerance {tolerance:g}"
    return ""


def _wrong_rules(plan: Plan) -> str:
    names = {STABLE, *plan.candidates}
    for rule in plan.routing.rules:
        if rule.variant not in names:
            return f"a rule is for variant {rule.variant!r}; there are {', '.join(sorted(names))}"
    return ""


def _wrong_steps(plan: Plan) -> str:
    if not plan.steps:
        return "it has no steps"
    before = 0.0
    for at, step in enumerate(plan.steps):
        if step.weight * len(plan.candidates) > 100 or step.weight < 0:
            return f"step {at}: the weights of the candidates must add up to 0 to 100 percent"
        if not 0 <= step.shadow <= 100:
            return f"step {at}: shadow must be 0 to 100 percent"
        if not step.weight and not step.shadow:
            return f"step {at} has neither weight nor shadow"
        if step.weight < before:
            return f"step {at}: weights must not fall, {before:g} then {step.weight:g}"
        before = step.weight
    if plan.kind == "blue_green" and any(step.weight not in (0, 100) for step in plan.steps):
        return "blue/green steps have weight 100, or shadow before it"
    return ""
