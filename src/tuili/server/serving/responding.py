"""From a model's arrays to the outputs of an answer: which, in which form, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tuili.errors import InternalError, InvalidArgument, Unsupported
from tuili.server.memory.shared_memory import DISABLED
from tuili.server.memory.sigbus import GUARD
from tuili.server.protocol.classification import classify
from tuili.server.protocol.datatypes import NUMPY
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    OutputTensor,
    Parameters,
    RequestedOutput,
    Shared,
)
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.scheduling.layout import Laid, Layout
from tuili.tensors import DType


class RowsMixed(InternalError):
    """A model's outputs do not have one row per row of its inputs: batches cannot be split."""


def check_rows(signature: Signature, outputs: Mapping[str, Array], rows: int) -> None:
    """Make sure that the outputs of a batch can be split among its requests."""
    for name, array in outputs.items():
        if not array.ndim or len(array) != rows:
            raise RowsMixed(
                f"output '{name}' of model '{signature.model}' has shape {list(array.shape)} for a "
                f"batch of {rows} rows: rows cannot be told apart"
            )


def check_scattered(
    signature: Signature, layout: Layout, batch: Sequence[Laid], outputs: Mapping[str, Array]
) -> None:
    """Make sure that outputs which follow a ragged input have an element for each of its own."""
    for name in layout.scattered.keys() & outputs.keys():
        found, wanted = outputs[name].size, layout.elements_of(name, batch)
        if found != wanted:
            raise RowsMixed(
                f"output '{name}' of model '{signature.model}' has {found} elements, but input "
                f"'{layout.scattered[name]}', whose shapes it is to take, has {wanted}"
            )


def select_outputs(
    signature: Signature,
    request: InferRequest,
    outputs: Mapping[str, Array],
) -> list[OutputTensor]:
    """The outputs that were asked for, in their order; all in the model's order otherwise."""
    rules = signature.outputs
    if GUARD.losses and request.shared is not None:
        request.shared.require_whole()
    if request.outputs:
        return [
            finish_output(
                signature,
                wanted,
                as_declared(signature, rules[wanted.name], outputs[wanted.name]),
                request.shared,
            )
            for wanted in request.outputs
            # As in Triton, a model may leave an output out.
            if wanted.name in outputs
        ]
    found: list[OutputTensor] = []
    for name in signature.output_order:
        if name in outputs:
            rule = rules[name]
            array = as_declared(signature, rule, outputs[name])
            found.append(OutputTensor(name, _datatype(rule, array), array.shape, array))
    return found


def _datatype(rule: TensorRule, array: Array) -> str:
    """That of the array: as in Triton, a model in Python may give another than it declares."""
    if array.dtype == NUMPY[rule.datatype]:
        return rule.datatype
    found = DType.of(array.dtype).kserve
    if not found:
        raise InternalError(
            f"output '{rule.name}' has NumPy dtype {array.dtype}, for which the protocol has no "
            f"datatype; declared is {rule.datatype}"
        )
    return found


def as_declared(signature: Signature, rule: TensorRule, array: Array) -> Array:
    """An output with the dims that clients see, where the back end has others."""
    if rule.reshape is not None and array.size and rule.dims.count(-1) <= 1:
        # The back end's dims to the configured ones.
        lead = array.shape[:1] if signature.max_batch_size else ()
        array = array.reshape(lead + rule.dims)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def finish_output(
    signature: Signature, wanted: RequestedOutput, array: Array, shared: Shared | None
) -> OutputTensor:
    """One output as it goes to the transport."""
    rule = signature.outputs[wanted.name]
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if not wanted.parameters:
        return OutputTensor(rule.name, _datatype(rule, array), array.shape, array)
    batched = signature.max_batch_size > 0
    return _with_parameters(rule, array, wanted.parameters, batched, shared)


def _with_parameters(
    rule: TensorRule, array: Array, parameters: Parameters, batched: bool, shared: Shared | None
) -> OutputTensor:
    top = parameters.get("classification")
    region = parameters.get("shared_memory_region")
    datatype = _datatype(rule, array)
    if top:
        if region is not None:
            raise InvalidArgument(
                "output can't set both 'shared_memory_region' and 'classification'"
            )
        array = classify(rule.name, array, int(top), rule.labels, batched)
        datatype = "BYTES"
    if region is None:
        return OutputTensor(rule.name, datatype, array.shape, array)
    if shared is None:
        raise Unsupported(DISABLED)
    shared.write(rule.name, parameters, array, datatype)
    return OutputTensor(rule.name, datatype, array.shape, None)
