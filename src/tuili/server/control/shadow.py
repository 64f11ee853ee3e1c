"""Shadow: copies of answered requests for candidates, whose answers go nowhere but into numbers.

A copy is made after the client's answer is ready; it is the first thing to go when there is much to
do; it never touches the response cache, and its runs are not in the candidate's public statistics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tuili.errors import TuiliError
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.messages import Array, InferRequest, InferResponse, InputTensor
from tuili.server.rollout.compare import Difference, compare
from tuili.server.rollout.history import Rollout
from tuili.server.rollout.plan import Plan
from tuili.server.rollout.tally import Tally
from tuili.server.serving.ensemble import Ensemble
from tuili.server.serving.servable import Servable
from tuili.server.telemetry.statistics import Statistics

Live = Servable | Ensemble


class Shadow:
    """The shadow traffic of a roll-out."""

    def __init__(
        self, plan: Plan, versions: Callable[[], Mapping[str, Live]], chance: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._versions = versions
        self._chance = chance
        self._share = 0.0
        self._numbers: dict[str, str] = {}
        self._tallies: Mapping[str, Tally] = {}
        self._inflight = 0
        self._captured = 0
        self._only_shadows = False
        self._muted: list[Statistics] = []

    def restart(self, rollout: Rollout, tallies: Mapping[str, Tally]) -> None:
        """A new step."""
        step = rollout.plan.steps[rollout.step]
        self._share = step.shadow / 100
        self._tallies = tallies
        self._numbers = {name: str(version) for name, version in rollout.candidates().items()}
        self._unmute()
        self._only_shadows = self._share > 0 and not step.weight

    def stop(self) -> None:
        """No more copies."""
        self._share = 0.0
        self._unmute()

    def offer(self, request: InferRequest, answer: InferResponse, waiting: int) -> None:
        """An answered request: copy it to the candidates, unless there is too much to do."""
        if not self._share or self._chance() >= self._share * self._plan.comparison.sample:
            return
        rules = self._plan.comparison
        if self._inflight >= rules.max_inflight or waiting > rules.shed_above:
            for name in self._numbers:
                self._tallies[name].shed += 1
            return
        if request.parameters and request.parameters.get("sequence_id"):
            return  # state cannot be copied
        outputs = {each.name: each.data for each in answer.outputs}
        if any(data is None for data in outputs.values()):
            return  # they went to shared memory
        kept = {name: np.array(data) for name, data in outputs.items() if data is not None}
        copied = _copy(request)
        self._mute()
        for name, number in self._numbers.items():
            live = self._versions().get(number)
            if live is not None:
                self._send(name, live, copied, kept)

    def _send(self, name: str, live: Live, request: InferRequest, stable: dict[str, Array]) -> None:
        tally = self._tallies[name]
        began = time.monotonic_ns()

        def answered(answer: InferResponse | TuiliError) -> None:
            self._inflight -= 1
            if isinstance(answer, TuiliError):
                tally.failed(f"shadow: {answer}")
                return
            tally.answered(time.monotonic_ns() - began)
            found = {each.name: each.data for each in answer.outputs if each.data is not None}
            difference = compare(stable, found, self._plan.comparison)
            _add(tally, difference)
            if difference.differs:
                self._capture(name, request, stable, found, difference)

        self._inflight += 1
        try:
            live.submit(request, answered)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no longer under way
            answered(of_tree(error, "a copy could not be asked"))

    def _capture(
        self,
        name: str,
        request: InferRequest,
        stable: Mapping[str, Array],
        candidate: Mapping[str, Array],
        difference: Difference,
    ) -> None:
        """Keep a differing payload for a person to look at."""
        rules = self._plan.capture
        if not rules.folder or self._captured >= rules.most:
            return
        self._captured += 1
        arrays: dict[str, Any] = {"why": np.array(difference.why)}
        arrays |= {f"input.{each.name}": each.data for each in request.inputs}
        arrays |= {f"stable.{key}": value for key, value in stable.items()}
        arrays |= {f"candidate.{key}": value for key, value in candidate.items()}
        plain = {
            key: value.astype("S") if value.dtype.hasobject else value
            for key, value in arrays.items()
        }
        try:
            folder = Path(rules.folder)
            folder.mkdir(parents=True, exist_ok=True)
            model = self._plan.model.replace("/", "-")
            path = folder / f"{model}-{name}-{self._captured}.npz"
            np.savez_compressed(path, **plain)
        except OSError as error:
            self._captured = rules.most  # a full disk is told once
            self._tallies[name].note = f"captures cannot be written: {error}"

    def _mute(self) -> None:
        """While nothing but shadows comes to the candidates, they count into nothing public."""
        for number in self._numbers.values() if self._only_shadows else ():
            live = self._versions().get(number)
            if live is not None and not live.statistics.muted:
                live.statistics.muted = True
                self._muted.append(live.statistics)

    def _unmute(self) -> None:
        for statistics in self._muted:
            statistics.muted = False
        self._muted.clear()


def _copy(request: InferRequest) -> InferRequest:
    """The request with arrays of its own: the transport's buffer is used again."""
    inputs = [
        InputTensor(each.name, each.datatype, each.shape, np.array(each.data))
        for each in request.inputs
    ]
    return InferRequest(
        request.model, inputs, "", request.id, request.outputs, None, None, uncached=True
    )


def _add(tally: Tally, found: Difference) -> None:
    tally.compared += 1
    tally.differing += found.differs
    tally.max_abs = max(tally.max_abs, found.max_abs)
    tally.max_rel = max(tally.max_rel, found.max_rel)
    tally.divergence += found.divergence
    tally.note = found.why or tally.note
