"""Pipeline: a version's `pipeline.yaml`, read and checked by itself.

    inputs:
      image: UINT8[-1,-1,3]
    outputs:
      text: [read.text, nothing.text]     # the first that is there
    steps:
      find:
        python: steps.py:find             # a function of NumPy arrays
        inputs: {image: image}
        outputs: {crops: "list of FP32[3,48,-1]", count: "INT64[]"}
      read:
        model: reader                     # a model of the repository; it runs once for each crop
        when: find.count > 0
        inputs: {x: find.crops}
      nothing: ...

`STEP.OUTPUT` names a tensor; a bare name is an input of the pipeline. Errors point at the line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from tuili.errors import InvalidModel, ParseError, nearest
from tuili.server.repository.formats import read_yaml
from tuili.server.repository.schema import ENUMS
from tuili.server.repository.source import Source
from tuili.server.scheduling.conditions import Condition
from tuili.server.scheduling.conditions import parse as parse_condition

FILE: Final = "pipeline.yaml"
_DATATYPES: Final = {
    "BYTES" if name == "TYPE_STRING" else name.removeprefix("TYPE_")
    for name in ENUMS["DataType"]
    if name != "TYPE_INVALID"
}
_TYPE: Final = re.compile(
    r"\s*(?P<list>list\s+of\s+)?(?P<datatype>\w+)\s*\[(?P<dims>[-\d,\s]*)\]\s*"
)
_STEP_NAME: Final = re.compile(r"[A-Za-z_][\w-]*")
_FUNCTION: Final = re.compile(r"(?P<file>[\w-]+\.py):(?P<function>[A-Za-z_]\w*)")
_TOP_KEYS: Final = ("inputs", "outputs", "steps", "max_inflight_requests")
_STEP_KEYS: Final = ("model", "version", "python", "inputs", "outputs", "when", "instances")


@dataclass(frozen=True, slots=True)
class TensorType:
    """Datatype and dims (-1: any) of a tensor, the batch dim included, or of each in a list."""

    datatype: str
    dims: tuple[int, ...]
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """One step: a model, or a Python function with its declared `outputs`."""

    name: str
    inputs: Mapping[str, tuple[str, ...]]
    when: tuple[Condition, ...]
    source: Source
    model: str = ""
    version: str = ""
    file: str = ""
    function: str = ""
    outputs: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])
    instances: int = 1


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Inputs, steps, and for each output the tensors it may be, best first."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, tuple[str, ...]]
    steps: Sequence[PipelineStep]
    source: Source
    max_inflight_requests: int = 0

    @property
    def models(self) -> list[str]:
        """The models of the repository that it calls."""
        return list(dict.fromkeys(step.model for step in self.steps if step.model))


def read(path: Path) -> Pipeline:
    """The pipeline in a file; InvalidModel points at what is off."""
    try:
        text = path.read_text(encoding="utf-8")
        raw, marks = read_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{path} cannot be read: {error}") from error
    except ParseError as error:
        raise InvalidModel(f"{path}: {error}") from error
    source = Source(str(path), text, marks)
    top = _object(raw, source, _TOP_KEYS)
    for key in ("inputs", "outputs", "steps"):
        if not top.get(key):
            raise source.error(f"a pipeline needs {key}", key)
    return Pipeline(
        inputs=_plain(_types(top["inputs"], source.at("inputs")), source.at("inputs")),
        outputs=_references(top["outputs"], source.at("outputs")),
        steps=_steps(top["steps"], source.at("steps")),
        source=source,
        max_inflight_requests=_count(top.get("max_inflight_requests", 0), source, 0),
    )


def parse_type(text: object, source: Source) -> TensorType:
    """`FP32[-1,3]`, `list of FP32[3,-1]`."""
    found = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise source.error(f"expected a type as FP32[-1,3], found {text!r}")
    if found["datatype"] not in _DATATYPES:
        hint = nearest(found["datatype"], _DATATYPES)
        raise source.error(f"{found['datatype']!r} is no datatype.{hint}")
    try:
        dims = tuple(int(dim) for dim in found["dims"].split(",") if dim.strip())
    except ValueError:
        raise source.error(f"expected whole numbers as dims, found {text!r}") from None
    if any(dim < -1 or dim == 0 for dim in dims):
        raise source.error(f"dims must be positive, or -1 for any, found {list(dims)}")
    return TensorType(found["datatype"], dims, bool(found["list"]))


# ------------------------------------------------------------------------------------- steps


def _steps(raw: object, source: Source) -> list[PipelineStep]:
    found: list[PipelineStep] = []
    for name, entry in _object(raw, source).items():
        where = source.at(name)
        if not _STEP_NAME.fullmatch(name):
            raise where.error(f"step name {name!r} must be letters, digits, _ and -")
        found.append(_step(name, _object(entry, where, _STEP_KEYS), where))
    return found


def _step(name: str, raw: Mapping[str, Any], source: Source) -> PipelineStep:
    if ("model" in raw) == ("python" in raw):
        raise source.error(f"step {name!r} needs either model or python")
    inputs = _references(raw.get("inputs", {}), source.at("inputs"))
    when = _conditions(raw.get("when", []), source.at("when"))
    instances = _count(raw.get("instances", 1), source.at("instances"), 1)
    if "model" in raw:
        if "outputs" in raw:
            raise source.error("a model's outputs are known; only python needs them", "outputs")
        version = "" if "version" not in raw else str(_count(raw["version"], source, 1))
        return PipelineStep(name, inputs, when, source, str(raw["model"]), version)
    code = _FUNCTION.fullmatch(str(raw["python"]))
    if code is None:
        raise source.error(f"expected FILE.py:FUNCTION, found {raw['python']!r}", "python")
    outputs = _types(raw.get("outputs"), source.at("outputs"))
    return PipelineStep(
        name, inputs, when, source,
        file=code["file"], function=code["function"], outputs=outputs, instances=instances,
    )  # fmt: skip


def _conditions(raw: object, source: Source) -> tuple[Condition, ...]:
    texts = cast(list[object], raw) if isinstance(raw, list) else [raw]
    try:
        return tuple(parse_condition(str(text)) for text in texts)
    except ParseError as error:
        raise source.error(str(error)) from error


def _types(raw: object, source: Source) -> dict[str, TensorType]:
    found = _object(raw, source)
    return {name: parse_type(text, source.at(name)) for name, text in found.items()}


def _plain(types: dict[str, TensorType], source: Source) -> dict[str, TensorType]:
    for name, kind in types.items():
        if kind.is_list:
            raise source.error(
                "a request brings no lists, only steps make them; take one tensor and divide it in "
                "a Python step",
                name,
            )
    return types


def _references(raw: object, source: Source) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in _object(raw, source).items():
        tensors = cast(list[object], value) if isinstance(value, list) else [value]
        if not tensors or not all(isinstance(tensor, str) for tensor in tensors):
            raise source.error(f"expected a tensor or a list of them, found {value!r}", name)
        found[name] = tuple(str(tensor) for tensor in tensors)
    return found


def _object(raw: object, source: Source, keys: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise source.error(f"expected names with values, found {raw!r}")
    found = {str(key): value for key, value in cast(dict[object, Any], raw).items()}
    for key in found:
        if keys and key not in keys:
            raise source.error(f"there is no {key!r} here.{nearest(key, keys)}", key)
    return found


def _count(raw: object, source: Source, least: int) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < least:
        raise source.error(f"expected a whole number of at least {least}, found {raw!r}")
    return raw
