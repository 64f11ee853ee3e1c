"""Judges of answers: the outputs must be those that are expected, or those of the first answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tuili.bench.load.exchange import Wrong
from tuili.errors import InvalidArgument
from tuili.server.protocol.datatypes import NUMPY, decode
from tuili.tensors import Array

Outputs = dict[str, Array]
_TOLERANCE: Final = 1e-5  # of the largest magnitude: a batch may sum in another order


class Expectation:
    """The outputs that answers must have; without them, what the first answer has."""

    def __init__(self, outputs: Mapping[str, Array] | None = None) -> None:
        self.outputs = dict(outputs) if outputs is not None else None

    def check(self, found: Outputs) -> None:
        """Raise Wrong where `found` differs."""
        if self.outputs is None:
            self.outputs = found
            return
        missing = self.outputs.keys() - found.keys()
        if missing:
            raise Wrong(f"no output {sorted(missing)} among {sorted(found)}")
        for name, expected in self.outputs.items():
            _compare(name, found[name], expected)

    def http(self, headers: dict[bytes, bytes], body: bytes) -> None:
        """Judge a v2 answer: JSON, then the outputs that go as bytes."""
        try:
            self.check(http_outputs(headers, body))
        except (ValueError, KeyError, TypeError, InvalidArgument) as error:
            raise Wrong(f"not a v2 answer ({error}): {body[:200]!r}") from error

    def grpc(self, _: dict[bytes, bytes], message: bytes) -> None:
        """Judge a ModelInferResponse."""
        try:
            self.check(grpc_outputs(message))
        except (ValueError, KeyError, TypeError, InvalidArgument) as error:
            raise Wrong(f"not a ModelInferResponse ({error}): {message[:200]!r}") from error


def _compare(name: str, found: Array, expected: Array) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise Wrong(
            f"output {name!r} is {found.dtype}{list(found.shape)}, expected "
            f"{expected.dtype}{list(expected.shape)}"
        )
    if np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"):
        return
    if found.dtype.kind == "f":
        scale = float(np.nanmax(np.abs(expected))) or 1.0
        if np.allclose(found, expected, rtol=0.0, atol=_TOLERANCE * scale, equal_nan=True):
            return
    raise Wrong(f"output {name!r} has other values than expected")


def http_outputs(headers: dict[bytes, bytes], body: bytes) -> Outputs:
    """The outputs of a v2 answer."""
    length = int(headers.get(b"inference-header-content-length", len(body)))
    document = json.loads(body[:length])
    at = length
    found: Outputs = {}
    for output in document["outputs"]:
        name, datatype, shape = output["name"], output["datatype"], tuple(output["shape"])
        parameters: dict[str, Any] = output.get("parameters") or {}
        size = parameters.get("binary_data_size")
        if size is not None:
            found[name] = decode(name, datatype, shape, body[at : at + size])
            at += size
        elif "data" in output:
            found[name] = np.array(output["data"], NUMPY[datatype]).reshape(shape)
    return found


def grpc_outputs(message: bytes) -> Outputs:
    """The outputs of a ModelInferResponse."""
    from tuili.server.grpc.schema import INFERENCE

    answer = INFERENCE["ModelInferResponse"].FromString(message)
    raw = list(answer.raw_output_contents)
    found: Outputs = {}
    for index, output in enumerate(answer.outputs):
        if index < len(raw):
            shape = tuple(output.shape)
            found[output.name] = decode(output.name, output.datatype, shape, raw[index])
    return found
