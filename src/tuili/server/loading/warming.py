"""Warm-up: instances run before they are asked, on zeros and on what the configuration gives."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tuili.backends import Executable
from tuili.errors import InvalidModel, TuiliError
from tuili.server.protocol.datatypes import NUMPY, decode
from tuili.server.protocol.messages import Array
from tuili.server.protocol.signature import Signature
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.placement import Placement

_log = logging.getLogger("tuili.server")

_RUNS: Final = 8
_BUDGET_S: Final = 5e-3
# Longer runs are never on the loop: no need to know more exactly.
_LIMIT_S: Final = 1e-3


def warm_all(
    config: ModelConfig,
    signature: Signature,
    placement: Placement,
    models: Sequence[Executable],
    folder: Path,
    *,
    on_zeros: bool,
) -> None:
    """Let instances run on zeros and on what the configuration gives; its failure is theirs.

    Not `on_zeros` where a user's code may count its runs or call other models: it runs when asked.
    """
    for model in models if on_zeros else ():
        warm(model, signature, placement)
    for entry in config.warmups:
        run_warmup(folder, config, signature, entry, models)


def warm(model: Executable, signature: Signature, placement: Placement) -> None:
    """Run on zeros, so that caches are hot and the time is known; 1, 2, 4 ... rows while quick.

    Where other dims than the batch are open, no guess at them is safe: such a model is measured in
    use, and warmed by what its configuration gives.
    """
    if any(-1 in rule.dims for rule in signature.inputs.values()):
        return
    rows = 1
    while rows <= max(signature.max_batch_size, 1):
        batch = {
            rule.name: zeros(rule.datatype, _backend_shape(signature, rule.name, rule.dims, rows))
            for rule in signature.inputs.values()
        }
        try:
            best = _quickest_s(model, batch)
        except TuiliError as error:
            _log.debug("%s: no measuring at warm-up: %s", signature.model, error)
            return
        placement.record(sum(array.size for array in batch.values()), best)
        if best > _LIMIT_S:
            return
        rows *= 2


def _quickest_s(model: Executable, batch: dict[str, Array]) -> float:
    """The time of the quickest of a few runs."""
    best = float("inf")
    started = time.monotonic()
    for _ in range(_RUNS):
        before = time.monotonic_ns()
        model.run(batch)
        best = min(best, (time.monotonic_ns() - before) / 1e9)
        if time.monotonic() - started > _BUDGET_S:
            break
    return best


def run_warmup(
    folder: Path,
    config: ModelConfig,
    signature: Signature,
    entry: dict[str, Any],
    models: Sequence[Executable],
) -> None:
    """One configured warm-up sample on every instance; its failure fails the load."""
    rows = int(entry.get("batch_size", 1)) or 1
    batch: dict[str, Array] = {}
    for name, wanted in entry.get("inputs", {}).items():
        rule = signature.inputs.get(name)
        if rule is None:
            raise InvalidModel(
                f"model '{config.name}': warm-up {entry.get('name', '')!r} has the unknown input "
                f"{name!r}"
            )
        dims = tuple(wanted.get("dims") or rule.dims)
        one = _backend_shape(signature, name, dims, 1)
        try:
            row = _warm_data(folder, rule.datatype, one, wanted)
        except TuiliError as error:
            where = f"model '{config.name}': warm-up of input {name!r}"
            raise InvalidModel(f"{where}: {error}") from error
        batch[name] = np.repeat(row, rows, axis=0) if signature.max_batch_size else row
    for _ in range(max(int(entry.get("count", 1)), 1)):
        for model in models:
            try:
                model.run(batch)
            except TuiliError as error:
                raise InvalidModel(
                    f"model '{config.name}': warm-up {entry.get('name', '')!r} failed: {error}"
                ) from error


def _warm_data(
    folder: Path, datatype: str, shape: tuple[int, ...], wanted: dict[str, Any]
) -> Array:
    """What one row has: the start of a file, random numbers, or zeros."""
    filename = wanted.get("input_data_file", "")
    if filename:
        path = folder / "warmup" / filename
        if "/" in filename or not path.is_file():
            raise InvalidModel(f"warm-up data {path} is missing")
        raw = path.read_bytes()
        if datatype != "BYTES":
            raw = raw[: math.prod(shape) * NUMPY[datatype].itemsize]
        return decode(str(path), datatype, shape, raw)
    if wanted.get("random_data") and datatype != "BYTES":
        return np.random.default_rng(0).random(shape).astype(NUMPY[datatype])
    return zeros(datatype, shape)


def _backend_shape(
    signature: Signature, name: str, dims: tuple[int, ...], rows: int
) -> tuple[int, ...]:
    concrete = tuple(max(dim, 1) for dim in dims)
    inner = signature.inputs[name].backend_dims(concrete)
    return (rows, *inner) if signature.max_batch_size else inner


def zeros(datatype: str, shape: tuple[int, ...]) -> Array:
    """Zeros, or empty BYTES."""
    if datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, NUMPY[datatype])
