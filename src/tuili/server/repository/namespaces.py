"""Namespaces: several repositories that may hold models of the same name.

A model is then called NAMESPACE/NAME, everywhere: in requests, the index, the journal, metrics. A
plain name stands for it where only one repository has it. What an ensemble or pipeline is made of
is looked for in its own namespace first, as Triton does with `--model-namespacing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tuili.errors import InvalidArgument, InvalidModel
from tuili.server.repository import config as configuration
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.layout import Namespaced
from tuili.server.repository.pipeline import Pipeline

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def named(places: Mapping[str, Path]) -> Namespaced:
    """Repositories by namespace; raises InvalidArgument for a name that cannot be one."""
    for name in places:
        if not NAME.fullmatch(name):
            raise InvalidArgument(
                f"invalid namespace {name!r}: letters, digits, '_', '.', '-', no digit first, 64 "
                "at most; give the repository another one, NAME=FOLDER"
            )
    return Namespaced(places)


def whole_names(known: Iterable[str], model: str) -> list[str]:
    """The names that a client may mean by `model`: itself, or those it is the plain name of."""
    names = sorted(known)
    return [model] if model in names else [name for name in names if name.endswith(f"/{model}")]


def ambiguous(model: str, names: Sequence[str]) -> str:
    """What is said of a plain name that several repositories have."""
    return (
        f"There are {len(names)} models called '{model}', model namespace must be provided to "
        f"resolve ambiguity: {', '.join(names)}"
    )


def read(
    places: Sequence[Path], name: str, folder: Path, override: str | None = None
) -> ModelConfig:
    """The configuration of the model called `name`, with the whole names of its steps."""
    config = configuration.read(folder, override)
    if not isinstance(places, Namespaced):
        return config
    raw: dict[str, Any] = dict(config.raw)
    scheduling = raw.get("ensemble_scheduling")
    if scheduling:
        steps = [
            {**step, "model_name": step_name(places, name, step.get("model_name", ""))}
            for step in scheduling.get("step", ())
        ]
        raw["ensemble_scheduling"] = {**scheduling, "step": steps}
    return replace(config, name=name, raw=raw)


def with_steps(places: Sequence[Path], name: str, pipeline: Pipeline) -> Pipeline:
    """A pipeline with the whole names of the models that it calls."""
    if not isinstance(places, Namespaced):
        return pipeline
    steps = [
        replace(step, model=step_name(places, name, step.model)) if step.model else step
        for step in pipeline.steps
    ]
    return replace(pipeline, steps=steps)


def step_name(places: Sequence[Path], name: str, step: str) -> str:
    """The whole name of what model `name` calls `step`: of its own namespace, or the only one."""
    if not isinstance(places, Namespaced) or "/" in step or not step:
        return step
    own = name.partition("/")[0]
    there = [space for space, place in places.by_name.items() if (place / step).is_dir()]
    if own in there or not there:
        return f"{own}/{step}"
    if len(there) > 1:
        names = [f"{space}/{step}" for space in there]
        raise InvalidModel(f"model '{name}': {ambiguous(step, names)}")
    return f"{there[0]}/{step}"
