"""The sequence policy of a stateful model, from its configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidModel
from tuili.server.protocol.datatypes import DTYPE, NUMPY
from tuili.server.protocol.messages import Array
from tuili.server.repository.config import DATATYPES, ModelConfig
from tuili.server.scheduling.controls import Control, ControlKind, StateTensor
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.sequences import SequencePolicy
from tuili.tensors import Dim, Sym, TensorSpec

Json = dict[str, Any]
Specs = tuple[TensorSpec, ...]

_KINDS: Final[dict[str, ControlKind]] = {
    "CONTROL_SEQUENCE_START": "start",
    "CONTROL_SEQUENCE_READY": "ready",
    "CONTROL_SEQUENCE_END": "end",
    "CONTROL_SEQUENCE_CORRID": "id",
}
_DEFAULT_IDLE_S: Final = 1.0
# "oldest" without a number: as many as can be told apart in a batch, and some to fill it.
_DEFAULT_CANDIDATES: Final = 128


def sequence_policy(config: ModelConfig, batch: BatchPolicy, folder: Path) -> SequencePolicy | None:
    """The policy of a model with `sequence_batching`; None for the others.

    A request to an iterative model is a sequence of its own, with which the model itself goes on.
    """
    raw = config.raw.get("sequence_batching")
    if raw is None or raw.get("iterative_sequence"):
        return None
    direct = "oldest" not in raw
    strategy: Json = raw.get("direct" if direct else "oldest", {})
    slots = max(batch.max_rows, 1)
    if not direct:
        slots = int(strategy.get("max_candidate_sequences", 0)) or _DEFAULT_CANDIDATES
    delay_s = int(strategy.get("max_queue_delay_microseconds", 0)) / 1e6
    utilization = float(strategy.get("minimum_slot_utilization", 0.0))
    preferred = tuple(sorted(strategy.get("preferred_batch_size", ())))
    instances = config.instances
    if raw.get("state"):
        # The server has the state: any instance may go on with a sequence, in any row.
        slots, instances = slots * instances, 1
        if direct:
            preferred = (math.ceil(utilization * batch.max_rows),) if utilization else ()
            delay_s, direct = delay_s if utilization else 0.0, False
    return SequencePolicy(
        batch=BatchPolicy(
            max_rows=batch.max_rows,
            merge=batch.max_rows > 0,
            preferred_rows=preferred,
            max_delay_s=delay_s,
            in_order=bool(strategy.get("preserve_ordering", False)),
        ),
        slots=slots,
        instances=instances,
        direct=direct,
        utilization=utilization,
        idle_s=int(raw.get("max_sequence_idle_microseconds", 0)) / 1e6 or _DEFAULT_IDLE_S,
        controls=tuple(
            _control(config, _input_of(config, entry), control)
            for entry in raw.get("control_input", ())
            for control in entry.get("control", ())
        ),
        states=tuple(
            _state(config, state, batch.max_rows > 0, folder) for state in raw.get("state", ())
        ),
    )


def sequence_specs(config: ModelConfig) -> tuple[Specs, Specs]:
    """The extra inputs and outputs of a stateful model that does not describe itself."""
    raw = config.raw.get("sequence_batching", {})
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for entry in raw.get("control_input", ()):
        for control in entry.get("control", ()):
            name = _input_of(config, entry)
            found = _control(config, name, control)
            kserve = next(name for name, kind in NUMPY.items() if kind == found.dtype)
            inputs.append(_spec(config, name, kserve, (1,)))
    for state in raw.get("state", ()):
        datatype = DATATYPES[state.get("data_type", "TYPE_INVALID")]
        dims = tuple(state.get("dims", ()))
        inputs.append(_spec(config, state.get("input_name", ""), datatype, dims))
        outputs.append(_spec(config, state.get("output_name", ""), datatype, dims))
    return tuple(inputs), tuple(outputs)


def _spec(config: ModelConfig, name: str, datatype: str, dims: Sequence[int]) -> TensorSpec:
    shape: list[Dim] = [Sym(f"state_{at}") if dim < 0 else dim for at, dim in enumerate(dims)]
    if config.max_batch_size:
        shape.insert(0, Sym("batch"))
    if datatype not in DTYPE:
        raise InvalidModel(f"model '{config.name}': state {name!r} needs a data_type")
    return TensorSpec(name, DTYPE[datatype], tuple(shape))


def _input_of(config: ModelConfig, entry: Json) -> str:
    """The input that a control goes into."""
    name = entry.get("name", "")
    if not name:
        raise InvalidModel(
            f"model '{config.name}': a control_input of sequence_batching has no name, which is "
            "that of the model's input"
        )
    return name


def _control(config: ModelConfig, name: str, raw: Json) -> Control:
    kind = _KINDS[raw.get("kind", "CONTROL_SEQUENCE_START")]
    if kind == "id":
        datatype = DATATYPES[raw.get("data_type", "TYPE_UINT64")]
        return Control(name, kind, NUMPY[datatype])
    for key, dtype in (
        ("int32_false_true", np.int32),
        ("fp32_false_true", np.float32),
        ("bool_false_true", np.bool_),
    ):
        values = raw.get(key)
        if values:
            if len(values) != 2:
                raise InvalidModel(
                    f"model '{config.name}': control {name!r}: {key} needs two values, got {values}"
                )
            return Control(name, kind, np.dtype(dtype), (values[0], values[1]))
    raise InvalidModel(
        f"model '{config.name}': control {name!r} needs int32_false_true, fp32_false_true or "
        "bool_false_true"
    )


def _state(config: ModelConfig, raw: Json, batched: bool, folder: Path) -> StateTensor:
    name = raw.get("input_name", "")
    datatype = DATATYPES[raw.get("data_type", "TYPE_INVALID")]
    if datatype not in NUMPY or not name or not raw.get("output_name"):
        raise InvalidModel(
            f"model '{config.name}': state {name!r} needs input_name, output_name and data_type"
        )
    first: Json = next(iter(raw.get("initial_state", ())), {})
    dims = tuple(first.get("dims") or raw.get("dims", ()))
    shape = tuple(max(dim, 1) for dim in dims)
    if batched:
        shape = (1, *shape)
    initial = _initial(config, first, datatype, shape, folder)
    shown = any(output.name == raw["output_name"] for output in config.outputs)
    return StateTensor(name, raw["output_name"], initial, shown)


def _initial(
    config: ModelConfig, raw: Json, datatype: str, shape: tuple[int, ...], folder: Path
) -> Array:
    filename = raw.get("data_file", "")
    if not filename:
        if datatype == "BYTES":
            return np.full(shape, b"", dtype=object)
        return np.zeros(shape, NUMPY[datatype])
    path = folder / "initial_state" / filename
    if "/" in filename or not path.is_file():
        raise InvalidModel(f"model '{config.name}': initial state {path} is missing")
    found = np.frombuffer(path.read_bytes(), NUMPY[datatype])
    if found.size != np.prod(shape):
        raise InvalidModel(
            f"{path} holds {found.size} elements, but the state {list(shape)} takes "
            f"{np.prod(shape)}"
        )
    return found.reshape(shape)
