"""A load on one model of a v2 server: its metadata, made-up inputs, and their first answers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final, Self

import numpy as np

from tuili.bench.load import payloads
from tuili.bench.load.answers import Expectation, grpc_outputs, http_outputs
from tuili.bench.load.control import control_of
from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Exchange, Log
from tuili.bench.load.levels import DRAIN_S, Level, Load, Settings, connector
from tuili.bench.load.payloads import Question
from tuili.bench.load.regions import Places, place
from tuili.bench.load.sockets import Target
from tuili.errors import InvalidArgument, Unavailable
from tuili.tensors import Array

_IDS: Final = 1024  # different ones, of a load whose requests have one

__all__ = ["Level", "Session", "Settings"]


class Session:
    """A prepared load; `closed` and `open` measure one level each."""

    def __init__(
        self,
        target: Target,
        question: Question,
        settings: Settings,
        *,
        inputs: Mapping[str, Array] | None = None,
        expected: Mapping[str, Array] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        shared: bool = False,
    ) -> None:
        self._target = target
        self._settings = settings
        self._control = control_of(target)
        question, sets = self._ask(question, inputs, shapes or {})
        self._question = question
        self._shared = shared
        self._regions: list[Places] = []
        self._sets = [(each, Expectation(expected)) for each in sets]
        self._load = Load(target, settings, self._exchanges)
        self.closed, self.open = self._load.closed, self._load.open
        self.largest_rate = self._load.largest_rate
        for each, expectation in self._sets:
            expectation.check(self._first_answer(each, expectation))

    def close(self) -> None:
        """Let go of shared memory."""
        for region in self._regions:
            with contextlib.suppress(Unavailable, InvalidArgument):
                self._control.unregister(region.region)
            region.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- steps
    def _ask(
        self,
        question: Question,
        inputs: Mapping[str, Array] | None,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> tuple[Question, list[dict[str, Array]]]:
        """The question with the types it needs, and different inputs for it."""
        metadata = self._control.metadata(question.model, question.version)
        specs = metadata["inputs"]
        question = replace(question, datatypes={s["name"]: s["datatype"] for s in specs})
        if inputs is not None:
            return question, [dict(inputs)]
        rng = np.random.default_rng(self._settings.seed)
        make = partial(payloads.random_array, rng)
        count = max(self._settings.variety, 1)
        return question, [payloads.made_up(specs, shapes, make) for _ in range(count)]

    def _first_answer(
        self, inputs: Mapping[str, Array], expectation: Expectation
    ) -> dict[str, Array]:
        """The outputs for `inputs`, asked for alone."""
        found: list[dict[str, Array]] = []

        def take(headers: dict[bytes, bytes], body: bytes) -> None:
            grpc = self._target.protocol == "grpc"
            found.append(grpc_outputs(body) if grpc else http_outputs(headers, body))

        exchange = payloads.exchange(self._target, self._question, inputs, expectation)
        exchange.judge = take
        log = Log()
        driver = Driver(connector(self._target, 1), [exchange], log)
        try:
            driver.closed(1)
            driver.drain(DRAIN_S)
        finally:
            driver.close()
        if not found:
            raise InvalidArgument(f"the server's first answer: {'; '.join(log.texts)}")
        return found[0]

    def _exchanges(self, count: int) -> list[Exchange]:
        if self._shared:
            return self._shared_exchanges(count)
        if self._question.ids:
            return [self._exchange(index) for index in range(max(count, _IDS))]
        made = [self._exchange(index) for index in range(len(self._sets))]
        return [replace(made[index % len(made)]) for index in range(max(count, len(made)))]

    def _exchange(self, index: int) -> Exchange:
        inputs, expectation = self._sets[index % len(self._sets)]
        question = self._question
        if question.ids:
            question = replace(question, ident=f"request {index}")
        return payloads.exchange(self._target, question, inputs, expectation)

    def _shared_exchanges(self, count: int) -> list[Exchange]:
        found: list[Exchange] = []
        for index in range(count):
            inputs, expectation = self._sets[index % len(self._sets)]
            typed = {n: (a, self._question.datatype(n, a)) for n, a in inputs.items()}
            if index >= len(self._regions):
                region = place(typed, expectation.outputs or {})
                self._regions.append(region)
                self._control.register(region.region, region.key, region.size)
            places = self._regions[index]
            found.append(
                payloads.shared_exchange(self._target, self._question, places, expectation)
            )
        return found
