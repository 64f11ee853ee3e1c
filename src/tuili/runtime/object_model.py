"""ObjectModel: a model in which some values are Python objects, such as text and sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuili.errors import InvalidArgument, Unsupported
from tuili.runtime.bound import BoundRun
from tuili.runtime.feeds import native_feeds, native_results
from tuili.runtime.model import Model, with_room
from tuili.runtime.objects import handle_of, objects_of_run
from tuili.tensors import Array


class ObjectModel(Model):
    """Like `Model`; text goes in and out as arrays of `str`, sequences as lists, maps as dicts."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for some inputs, by name; raises InvalidArgument."""
        return self.run_into(feeds, {})

    def run_on(self, feeds: Mapping[str, Any], threads: int) -> dict[str, Any]:
        """As `run`: objects are made and read by one thread anyway."""
        return self.run(feeds)

    def run_into(self, feeds: Mapping[str, Any], outputs: Mapping[str, Array]) -> dict[str, Any]:
        """`run`, with the given arrays filled instead of new ones where `outputs` names them."""
        self._check_given(outputs)
        given = native_feeds(self.inputs, feeds, self._where)
        pairs = list(zip(self.inputs, given, strict=True))
        plan = self._plan(tuple(() if spec.type else value.shape for spec, value in pairs))
        tensors = [value for spec, value in pairs if not spec.is_object]
        results = with_room(plan, native_results(plan, outputs, tensors, self._where))
        with objects_of_run() as objects:
            handles = [
                handle_of(value, objects) if spec.is_object else value for spec, value in pairs
            ]
            answers: dict[str, Any] = self._execute(handles, plan, results, self.threads)
            for spec in self.outputs:
                if spec.is_object:
                    answers[spec.name] = objects[int(answers[spec.name])]
        return answers

    def bind(
        self, feeds: Mapping[str, Any], outputs: Mapping[str, Array] | None = None
    ) -> BoundRun:
        """Objects are made anew by every run; raises Unsupported."""
        raise Unsupported(f"{self._where}: values that are Python objects cannot be bound")

    def _check_given(self, outputs: Mapping[str, Array]) -> None:
        for spec in self.outputs:
            if spec.is_object and spec.name in outputs:
                raise InvalidArgument(
                    f"{self._where}: the array for output {spec.name!r} cannot be given: "
                    f"{spec} is made by Python"
                )
