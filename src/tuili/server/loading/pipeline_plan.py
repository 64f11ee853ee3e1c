"""Plans a pipeline: its Dag, the type of every tensor, and what each step takes and gives.

Everything that can be wrong between steps is found here, when the pipeline is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuili.errors import InvalidModel, nearest
from tuili.server.protocol.signature import Signature, TensorRule, dims_text
from tuili.server.repository.pipeline import Pipeline, PipelineStep, TensorType
from tuili.server.scheduling.dag import Dag, Step


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The Dag and the types of its tensors, merges included."""

    dag: Dag
    types: Mapping[str, TensorType]
    pipeline: Pipeline

    def step_inputs(self, at: int) -> dict[str, TensorType]:
        """What a step is given, by the names of its inputs."""
        return {name: self.types[tensor] for name, tensor in self.dag.steps[at].needs.items()}

    def outputs(self) -> dict[str, TensorType]:
        """The pipeline's outputs."""
        return {name: self.types[name] for name in self.pipeline.outputs}


def plan(name: str, pipeline: Pipeline, models: Mapping[str, Signature]) -> PipelinePlan:
    """The plan; `models` has the signature of each model step by the name of the step."""
    merges = dict(_merges(pipeline))
    try:
        dag = Dag(name, pipeline.inputs, pipeline.outputs, list(_steps(pipeline)), merges)
    except InvalidModel as error:
        raise InvalidModel(f"{pipeline.source.name}: {error}") from error
    types = dict(pipeline.inputs)
    for step, compiled in zip(pipeline.steps, dag.steps, strict=True):
        for output, tensor in compiled.makes.items():
            types[tensor] = _made_type(step, output, models)
    _type_merges(pipeline, merges, types)
    found = PipelinePlan(dag, types, pipeline)
    for at, step in enumerate(pipeline.steps):
        _check_conditions(step, types)
        if step.model:
            _check_inputs(step, found.step_inputs(at), models[step.name])
    return found


def signature_of(
    name: str, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]
) -> Signature:
    """The signature of a function step."""

    def rules(types: Mapping[str, TensorType]) -> list[TensorRule]:
        return [TensorRule(key, each.datatype, each.dims) for key, each in types.items()]

    return Signature(name, rules(inputs), rules(outputs), 0)


# ------------------------------------------------------------------------------------- tensors


def _steps(pipeline: Pipeline) -> Iterable[Step]:
    read = _all_read(pipeline)
    for step in pipeline.steps:
        prefix = f"{step.name}."
        outputs = step.outputs or [
            tensor.removeprefix(prefix) for tensor in read if tensor.startswith(prefix)
        ]
        yield Step(
            step.model or step.function,
            step.version,
            {key: _tensor_of(step, key, sources) for key, sources in step.inputs.items()},
            {output: prefix + output for output in outputs},
            step.when,
            step.name,
        )


def _all_read(pipeline: Pipeline) -> list[str]:
    """Every tensor that somebody reads, once."""
    found = [tensor for sources in pipeline.outputs.values() for tensor in sources]
    for step in pipeline.steps:
        found += [tensor for sources in step.inputs.values() for tensor in sources]
        found += [condition.tensor for condition in step.when]
    return list(dict.fromkeys(found))


def _tensor_of(step: PipelineStep, key: str, sources: tuple[str, ...]) -> str:
    return sources[0] if len(sources) == 1 else f"{step.name}<{key}"


def _merges(pipeline: Pipeline) -> Iterable[tuple[str, tuple[str, ...]]]:
    yield from pipeline.outputs.items()
    for step in pipeline.steps:
        for key, sources in step.inputs.items():
            if len(sources) > 1:
                yield _tensor_of(step, key, sources), sources


# ------------------------------------------------------------------------------------- types


def _made_type(step: PipelineStep, output: str, models: Mapping[str, Signature]) -> TensorType:
    if not step.model:
        if output not in step.outputs:
            known = nearest(output, step.outputs)
            raise step.source.error(f"step '{step.name}' has no output '{output}'.{known}")
        return step.outputs[output]
    signature = models[step.name]
    rule = signature.outputs.get(output)
    if rule is None:
        raise step.source.error(
            f"model '{step.model}' has no output '{output}'.{nearest(output, signature.outputs)}"
        )
    return TensorType(rule.datatype, _whole(signature, rule))


def _whole(signature: Signature, rule: TensorRule) -> tuple[int, ...]:
    return (-1, *rule.dims) if signature.max_batch_size else rule.dims


def _type_merges(
    pipeline: Pipeline, merges: Mapping[str, tuple[str, ...]], types: dict[str, TensorType]
) -> None:
    waiting = dict(merges)
    while waiting:
        for name, sources in list(waiting.items()):
            if all(source in types for source in sources):
                types[name] = _joined(pipeline, name, [types[source] for source in sources])
                del waiting[name]


def _joined(pipeline: Pipeline, name: str, kinds: list[TensorType]) -> TensorType:
    """One type for all: dims that differ are open."""
    first = kinds[0]
    for kind in kinds[1:]:
        if kind.datatype != first.datatype or len(kind.dims) != len(first.dims):
            raise pipeline.source.error(
                f"'{name}' may be {_text(first)} or {_text(kind)}; datatype and rank must agree",
                *(("outputs", name) if name in pipeline.outputs else ("steps",)),
            )
        dims = (a if a == b else -1 for a, b in zip(first.dims, kind.dims, strict=True))
        first = TensorType(first.datatype, tuple(dims))
    return first


def _check_inputs(step: PipelineStep, given: dict[str, TensorType], model: Signature) -> None:
    for name, kind in given.items():
        where = step.source.at("inputs", name)
        rule = model.inputs.get(name)
        if rule is None:
            hint = nearest(name, model.inputs)
            raise where.error(f"model '{step.model}' has no input '{name}'.{hint}")
        wanted = TensorType(rule.datatype, _whole(model, rule))
        if not _fits(kind, wanted):
            raise where.error(f"input '{name}' of model '{step.model}' is {_text(wanted)}, but "
                              f"the tensor is {_text(kind)}")  # fmt: skip
    for name, rule in model.inputs.items():
        if name not in given and not rule.optional:
            raise step.source.error(f"model '{step.model}' needs the input '{name}'", "inputs")


def _check_conditions(step: PipelineStep, types: Mapping[str, TensorType]) -> None:
    for condition in step.when:
        kind = types[condition.tensor]
        if any(dim > 1 for dim in kind.dims):
            raise step.source.error(
                f"a condition needs a tensor of one element, but '{condition.tensor}' is "
                f"{_text(kind)}",
                "when",
            )


def _fits(kind: TensorType, wanted: TensorType) -> bool:
    return (
        kind.datatype == wanted.datatype
        and len(kind.dims) == len(wanted.dims)
        and all(a == b or -1 in (a, b) for a, b in zip(kind.dims, wanted.dims, strict=True))
    )


def _text(kind: TensorType) -> str:
    return kind.datatype + dims_text(kind.dims)
