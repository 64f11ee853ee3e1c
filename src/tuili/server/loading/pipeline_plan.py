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
from tuili.server.serving.ensemble_each import Each


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The Dag and the types of its tensors, merges included."""

    dag: Dag
    types: dict[str, TensorType]
    pipeline: Pipeline
    # The model steps that run once for each item of a list.
    each: dict[int, Each]

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
    each: dict[int, Each] = {}
    found = PipelinePlan(dag, types, pipeline, each)
    for at in dag.order:
        if isinstance(at, str):
            types[at] = _joined(pipeline, at, [types[source] for source in merges[at]])
        else:
            _type_step(found, at, models)
    for step in pipeline.steps:
        _check_conditions(step, types)
    for output in pipeline.outputs:
        if types[output].is_list:
            raise pipeline.source.error(
                f"output '{output}' would be a list; join it to one tensor in a Python step",
                "outputs",
                output,
            )
    return found


def _type_step(found: PipelinePlan, at: int, models: Mapping[str, Signature]) -> None:
    """Check what a step is given and note what it makes, after those steps that it needs."""
    step, given = found.pipeline.steps[at], found.step_inputs(at)
    if step.model:
        model = models[step.name]
        lists = [name for name, kind in given.items() if kind.is_list]
        if lists:
            found.each[at] = Each(step.name, _one_row(lists, given, model))
        _check_inputs(step, given, model, found.each.get(at))
    for output, tensor in found.dag.steps[at].makes.items():
        found.types[tensor] = _made_type(step, output, models, found.each.get(at))


def _one_row(lists: list[str], given: dict[str, TensorType], model: Signature) -> bool:
    """Whether items are rows without the batch dim of their model."""
    ranks = {len(given[name].dims) - len(model.inputs[name].dims) for name in lists}
    return model.max_batch_size > 0 and ranks == {0}


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


def _made_type(
    step: PipelineStep, output: str, models: Mapping[str, Signature], each: Each | None
) -> TensorType:
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
    dims = rule.dims if each is not None and each.rows else _whole(signature, rule)
    return TensorType(rule.datatype, dims, each is not None)


def _whole(signature: Signature, rule: TensorRule) -> tuple[int, ...]:
    return (-1, *rule.dims) if signature.max_batch_size else rule.dims


def _joined(pipeline: Pipeline, name: str, kinds: list[TensorType]) -> TensorType:
    """One type for all: dims that differ are open."""
    first = kinds[0]
    for kind in kinds[1:]:
        alike = kind.datatype == first.datatype and kind.is_list == first.is_list
        if not alike or len(kind.dims) != len(first.dims):
            raise pipeline.source.error(
                f"'{name}' may be {_text(first)} or {_text(kind)}; datatype and rank must agree",
                *(("outputs", name) if name in pipeline.outputs else ("steps",)),
            )
        dims = (a if a == b else -1 for a, b in zip(first.dims, kind.dims, strict=True))
        first = TensorType(first.datatype, tuple(dims), first.is_list)
    return first


def _check_inputs(
    step: PipelineStep, given: dict[str, TensorType], model: Signature, each: Each | None
) -> None:
    for name, kind in given.items():
        where = step.source.at("inputs", name)
        rule = model.inputs.get(name)
        if rule is None:
            hint = nearest(name, model.inputs)
            raise where.error(f"model '{step.model}' has no input '{name}'.{hint}")
        row = kind.is_list and each is not None and each.rows
        wanted = TensorType(rule.datatype, rule.dims if row else _whole(model, rule))
        if not _fits(kind, wanted):
            raise where.error(f"input '{name}' of model '{step.model}' is {_text(wanted)}, but "
                              f"the tensor is {_text(kind)}")  # fmt: skip
    for name, rule in model.inputs.items():
        if name not in given and not rule.optional:
            raise step.source.error(f"model '{step.model}' needs the input '{name}'", "inputs")


def _check_conditions(step: PipelineStep, types: Mapping[str, TensorType]) -> None:
    for condition in step.when:
        kind = types[condition.tensor]
        if kind.is_list or any(dim > 1 for dim in kind.dims):
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
    return "list of " * kind.is_list + kind.datatype + dims_text(kind.dims)
