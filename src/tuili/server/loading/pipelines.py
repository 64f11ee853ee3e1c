"""The parts of a running pipeline that are its own: the processes of its Python steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tuili.backends import BackendOptions
from tuili.backends.function import LISTS, Lists
from tuili.backends.items import SHAPES
from tuili.server.execution.hosts import Host
from tuili.server.loading.completion import declared_specs
from tuili.server.loading.pipeline_plan import PipelinePlan, signature_of
from tuili.server.loading.preparing import host_spec
from tuili.server.repository.config import ModelConfig, TensorConfig
from tuili.server.repository.pipeline import PipelineStep, TensorType
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.serving.servable import Servable
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics


def start_functions(plan: PipelinePlan, config: ModelConfig, folder: Path) -> dict[int, list[Host]]:
    """The started hosts of every Python step, by the step's place; blocks, for a thread."""
    started: dict[int, list[Host]] = {}
    try:
        for at, step in enumerate(plan.pipeline.steps):
            if step.function:
                hosts = started.setdefault(at, [])
                for _ in range(step.instances):
                    hosts.append(_host(plan, at, step, config, folder))
                    hosts[-1].start()
    except BaseException:
        for hosts in started.values():
            for host in hosts:
                host.close()
        raise
    return started


def function_servable(plan: PipelinePlan, at: int, hosts: Sequence[Host], version: str) -> Servable:
    """A Python step as a model of its own, which only the pipeline can call."""
    step = plan.pipeline.steps[at]
    name = f"{plan.dag.name}.{step.name}"
    servable = Servable(
        signature_of(name, crossing(plan.step_inputs(at)), crossing(step.outputs)),
        version,
        [slot for host in hosts for slot in host.slots],
        Terms(BatchPolicy()),
        Statistics(name, version),
        hosts=hosts,
    )
    for host in hosts:
        host.attach(partial(host_changed, servable, host))
    return servable


def tensor_configs(types: Mapping[str, TensorType]) -> tuple[TensorConfig, ...]:
    """Types as a configuration declares tensors."""
    return tuple(TensorConfig(name, kind.datatype, kind.dims) for name, kind in types.items())


def crossing(types: Mapping[str, TensorType]) -> dict[str, TensorType]:
    """The tensors by which these reach a process: two for a list (backends/items.py)."""
    found: dict[str, TensorType] = {}
    for name, kind in types.items():
        found[name] = TensorType(kind.datatype, (-1,)) if kind.is_list else kind
        if kind.is_list:
            found[name + SHAPES] = TensorType("INT64", (-1, -1))
    return found


def _lists(types: Mapping[str, TensorType]) -> dict[str, list[int]]:
    return {name: list(kind.dims) for name, kind in types.items() if kind.is_list}


def _host(
    plan: PipelinePlan, at: int, step: PipelineStep, config: ModelConfig, folder: Path
) -> Host:
    path = folder / step.file
    if not path.is_file():
        raise step.source.error(f"{path} is missing", "python")
    given = plan.step_inputs(at)
    settings = BackendOptions(
        parameters={
            **config.parameters,
            "function": step.function,
            LISTS: msgspec.json.encode(Lists(_lists(given), _lists(step.outputs))).decode(),
        },
        declared_inputs=declared_specs(tensor_configs(crossing(given)), 0),
        declared_outputs=declared_specs(tensor_configs(crossing(step.outputs)), 0),
    )
    name = f"{plan.dag.name}.{step.name}-{folder.name}"
    return Host(host_spec(name, "function", path, settings))


def host_changed(servable: Servable, host: Host) -> None:
    """Tell a servable that one of its hosts went or came back."""
    servable.instances_changed(host.reason, given_up=host.policy.open)
