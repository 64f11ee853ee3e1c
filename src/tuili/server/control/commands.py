"""Commands: what operators ask of roll-outs, labels and pointers; every one ends in the journal."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any, Final

import msgspec

from tuili.errors import InvalidArgument, NotFound
from tuili.server.control.conductor import Conductor
from tuili.server.repository.layout import find_model, versions_of
from tuili.server.rollout.evidence import rate_higher
from tuili.server.rollout.history import Entry
from tuili.server.rollout.metrics import metric_of
from tuili.server.rollout.plan import CANDIDATE, STABLE, Plan, parse
from tuili.server.rollout.states import State
from tuili.server.rollout.verdict import limit

Json = dict[str, Any]
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
# What an operator may do with a roll-out, and the event that it is.
ACTIONS: Final = {
    "pause": "paused",
    "resume": "resumed",
    "abort": "aborted",
    "rollback": "rolling_back",
    "promote": "promoting",
}


class Commands:
    """The operators' side of a conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    # ---- roll-outs
    async def create(self, document: Json, who: str) -> Json:
        """Begin a roll-out from a plan, or with `dry_run` only say what it would do."""
        conductor = self._conductor
        plan = parse(document)
        versions = self._versions(plan)
        await conductor.read_new()
        stable = plan.stable or self._answering(plan.model)
        self._check_versions(plan, stable, versions)
        if plan.dry_run:
            return preview(plan, stable)
        name = plan.name or f"{plan.model}-{conductor.world.seq + 1}"
        plan = msgspec.structs.replace(plan, name=name)
        numbers = {"plan": msgspec.to_builtins(plan), "stable": stable}
        why = f"version {', '.join(map(str, plan.candidates.values()))} against {stable}"
        await conductor.append(Entry(plan.model, "created", who, why, name, numbers))
        await conductor.tick(read=False)
        return self.show(name)

    async def act(self, name: str, action: str, who: str, why: str = "") -> Json:
        """Pause, resume, abort, promote or roll back."""
        conductor = self._conductor
        event = ACTIONS.get(action)
        if event is None:
            raise InvalidArgument(f"unknown action {action!r}; known: {', '.join(ACTIONS)}")
        await conductor.read_new()
        lost = conductor.world.lost.get(name)
        if lost is not None and event == "aborted":
            await conductor.append(Entry(lost.model, event, who, why or f"by {who}", name))
            return {"name": name, "model": lost.model, "state": lost.state.value, "why": lost.why}
        rollout = conductor.world.rollout(name)
        numbers: Json = {}
        if event == "promoting":
            numbers["candidate"] = next(iter(rollout.candidates()))
        why = why or f"by {who}"
        entry = Entry(rollout.plan.model, event, who, why, name, numbers)
        await conductor.append(entry)
        await conductor.tick(read=False)
        return self.show(name)

    def show(self, name: str) -> Json:
        """A roll-out with its numbers so far."""
        conductor = self._conductor
        rollout = conductor.world.rollout(name)
        found = rollout.json() | {"leader": conductor.is_leader(), "trouble": conductor.trouble}
        verdicts = conductor.verdicts.get(name, {})
        found["verdicts"] = {
            each: {"outcome": v.outcome.value, "why": v.text(), "numbers": v.numbers}
            for each, v in verdicts.items()
        }
        found["waits_for"] = conductor.waits_for(name)
        split = conductor.reconciler.splits.get(rollout.plan.model)
        if split is not None:
            found["here"] = {
                variant: {
                    key: value
                    for key, value in tally.json().items()
                    if key not in ("durations", "recent")
                }
                for variant, tally in split.tallies.items()
            }
        return found

    def list_all(self) -> Json:
        """All roll-outs, the newest first, and what of the journal cannot be read."""
        world = self._conductor.world
        found = {"rollouts": [rollout.json() for rollout in reversed(world.rollouts.values())]}
        return found | ({"unreadable": world.unreadable} if world.unreadable else {})

    # ---- pointers and labels
    async def rollback(self, model: str, to: int | None, who: str, why: str = "") -> Json:
        """Let another version answer: `to`, or the one before."""
        conductor = self._conductor
        await conductor.read_new()
        state = conductor.world.model(model)
        active = conductor.world.active(model)
        if active is not None:
            if to is not None and to != active.stable:
                raise InvalidArgument(
                    f"roll-out {active.name!r} of {model!r} is {active.state.value}: end it first"
                )
            early = active.state in (State.SCHEDULED, State.LOADING)
            return await self.act(active.name, "abort" if early else "rollback", who, why)
        target = to if to is not None else state.previous
        if target is None:
            raise InvalidArgument(
                f"model {model!r} has no earlier version in its history; name one"
            )
        before = self._answering(model)
        await conductor.repository.add_version(model, target)
        digest = await conductor.version_digest(model, target)
        numbers = {"version": target, "before": before}
        why = why or f"by {who}"
        await conductor.append(Entry(model, "pointer", who, why, "", numbers, digest))
        await conductor.tick(read=False)
        return {"model": model, "version": target, "before": before}

    async def label(self, model: str, label: str, version: int | None, who: str) -> Json:
        """Point a label at a loaded version, or (None) remove it."""
        conductor = self._conductor
        if not _LABEL.fullmatch(label) or label in (STABLE, CANDIDATE):
            raise InvalidArgument(
                f"label {label!r} must be a word that begins with a letter; "
                f"{STABLE!r} and {CANDIDATE!r} follow roll-outs"
            )
        await conductor.read_new()
        if version is None:
            if label not in conductor.world.model(model).labels:
                raise NotFound(f"model {model!r} has no label {label!r}")
            await conductor.append(Entry(model, "unlabel", who, numbers={"label": label}))
        else:
            if str(version) not in conductor.repository.live.get(model, {}):
                raise InvalidArgument(
                    f"label {label!r} may point only to a loaded version; version {version} of "
                    f"{model!r} is not"
                )
            numbers = {"label": label, "version": version}
            await conductor.append(Entry(model, "label", who, numbers=numbers))
        await conductor.tick(read=False)
        return self.labels(model)

    def labels(self, model: str) -> Json:
        """A model's labels."""
        conductor = self._conductor
        found = dict(conductor.world.model(model).labels)
        if STABLE not in found and model in conductor.repository.live:
            found[STABLE] = self._answering(model)
        active = conductor.world.active(model)
        if active is not None:
            found |= active.candidates()
        return {"model": model, "labels": found}

    # ---- history
    async def history(self, model: str = "", since: int = 0) -> Json:
        """The journal, of one model or all."""
        conductor = self._conductor
        await conductor.read_new()
        store = await conductor.store()
        entries = await asyncio.to_thread(store.read, since)
        return {"entries": [e.json() for e in entries if model in ("", e.model)]}

    def feedback(self, model: str, document: Json) -> Json:
        """A client's opinion of an answer: `{"request_id" or "variant", "name", "value"}`."""
        split = self._conductor.reconciler.splits.get(model)
        if split is None:
            raise NotFound(f"model {model!r} has no roll-out under way that takes feedback")
        name, value = document.get("name", "score"), document.get("value")
        if isinstance(value, bool):
            value = float(value)
        if not isinstance(name, str) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidArgument(
                f"feedback needs a 'name' and a 'value' from 0 to 1, got {name!r}, {value!r}"
            )
        request_id, variant = str(document.get("request_id", "")), str(document.get("variant", ""))
        counted = split.feedback(request_id, variant, name, float(value))
        if not counted:
            raise NotFound(
                f"no answer with id {request_id!r} is remembered, and variant {variant!r} is none "
                f"of {', '.join(split.tallies)}"
            )
        return {"variant": counted}

    # ---- steps
    def _answering(self, model: str) -> int:
        """The version that answers for a model now."""
        pointer = self._conductor.world.model(model).pointer
        live = self._conductor.repository.live.get(model, {})
        if pointer is not None and str(pointer) in live:
            return pointer
        if not live:
            raise NotFound(f"model {model!r} is not loaded")
        return max(int(version) for version in live if version)

    def _versions(self, plan: Plan) -> list[int]:
        folder = find_model(self._conductor.folders, plan.model)
        if folder is None:
            raise NotFound(f"model {plan.model!r} is not in the repository")
        return versions_of(folder)

    def _check_versions(self, plan: Plan, stable: int, there: list[int]) -> None:
        if str(stable) not in self._conductor.repository.live.get(plan.model, {}):
            raise InvalidArgument(f"the stable version {stable} of {plan.model!r} is not loaded")
        copying = self._conductor.repository.copying(plan.model)
        for name, version in plan.candidates.items():
            if why := copying.get(version):
                raise InvalidArgument(f"{name} is version {version}, and not whole yet: {why}")
            if version == stable:
                raise InvalidArgument(f"{name} is version {version}, which is the stable one")
            if version not in there:
                raise InvalidArgument(
                    f"{name} is version {version} of {plan.model!r}, which is not in the "
                    f"repository; it has {', '.join(map(str, there))}"
                )


def preview(plan: Plan, stable: int) -> Json:
    """What a plan would do, step by step, and about how many answers its proofs need."""
    steps: list[Json] = []
    for at, step in enumerate(plan.steps):
        needs = {}
        for name, target in plan.metrics_at(at).items():
            metric = metric_of(name)
            needs[name] = {
                "rolls_back_above": limit(target.tolerance, metric.tolerance),
                "proves_below": limit(target.margin, metric.margin),
            }
        steps.append(
            msgspec.to_builtins(step)
            | {"step": at, "ends_with": plan.required_at(at), "metrics": needs}
        )
    bar = math.log(plan.tests() / plan.alpha)
    clean = next(
        (n for n in (2**k for k in range(6, 22)) if rate_higher((0, 0), (n, n), -0.005) >= bar), 0
    )
    return {
        "dry_run": True,
        "model": plan.model,
        "stable": stable,
        "candidates": plan.candidates,
        "steps": steps,
        "tests": plan.tests(),
        "evidence_needed": round(math.exp(bar)),
        "answers_to_prove_errors_within_half_a_point": clean,
        "guards": msgspec.to_builtins(plan.guards),
    }
