"""Finishes an output: classification and shared memory, as the request asked."""

from __future__ import annotations

import numpy as np

from tuili.errors import InternalError, InvalidArgument
from tuili.server.protocol.classification import classify
from tuili.server.protocol.messages import Array, OutputTensor, Parameters, RequestedOutput
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.shared_memory import Regions


def finish_output(
    signature: Signature, wanted: RequestedOutput, array: Array, regions: Regions | None
) -> OutputTensor:
    """One output as it goes to the transport."""
    rule = signature.outputs[wanted.name]
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if not wanted.parameters:
        return OutputTensor(rule.name, rule.datatype, array.shape, array)
    batched = signature.max_batch_size > 0
    return _with_parameters(rule, array, wanted.parameters, batched, regions)


def _with_parameters(
    rule: TensorRule, array: Array, parameters: Parameters, batched: bool, regions: Regions | None
) -> OutputTensor:
    top = parameters.get("classification")
    region = parameters.get("shared_memory_region")
    datatype = rule.datatype
    if top:
        if region is not None:
            raise InvalidArgument(
                "output can't set both 'shared_memory_region' and 'classification'"
            )
        array = classify(rule.name, array, int(top), rule.labels, batched)
        datatype = "BYTES"
    if region is None:
        return OutputTensor(rule.name, datatype, array.shape, array)
    if regions is None:
        raise InternalError("an output in shared memory, but no registry of regions")
    size = regions.write(parameters, array, datatype)
    told: Parameters = {"shared_memory_region": region, "shared_memory_byte_size": size}
    if parameters.get("shared_memory_offset"):
        told["shared_memory_offset"] = parameters["shared_memory_offset"]
    return OutputTensor(rule.name, datatype, array.shape, None, told)
