"""Inputs made up for a model, when the user has none at hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from tuili.errors import InvalidArgument, nearest
from tuili.runtime.memory import usable_bytes
from tuili.tensors import Array, DType, TensorSpec, evaluate, symbols_of

Shapes = Mapping[str, tuple[int, ...]]


def random_feeds(
    specs: Iterable[TensorSpec], shapes: Shapes | None = None, seed: int = 0
) -> dict[str, Array]:
    """One random array per input: normal floats, small integers; the same for the same seed.

    `shapes` gives inputs by name their dims; dims known from neither are 1.
    """
    wanted = list(specs)
    rng = np.random.default_rng(seed)
    sizes = bound_symbols(wanted, shapes or {})
    return {spec.name: _made_up(rng, spec, _concrete(spec, sizes)) for spec in wanted}


def bound_symbols(specs: Iterable[TensorSpec], shapes: Shapes) -> dict[str, int]:
    """What each symbolic dim is when the inputs have the given shapes; refuses conflicts."""
    known = {spec.name: spec for spec in specs}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        spec = known.get(name)
        if spec is None:
            raise InvalidArgument(
                f"the model has no input {name!r}.{nearest(name, known)} "
                f"Its inputs: {', '.join(map(repr, known))}"
            )
        if len(shape) != len(spec.shape):
            raise InvalidArgument(
                f"input {spec} has {len(spec.shape)} dims; {list(shape)} was given"
            )
        for axis, (dim, size) in enumerate(zip(spec.shape, shape, strict=True)):
            expected = dim if isinstance(dim, int) else sizes.setdefault(str(dim), size)
            if expected != size:
                named = f"{dim} = " if str(dim) != str(expected) else ""
                raise InvalidArgument(
                    f"input {spec}: {list(shape)} was given; axis {axis} must be {named}{expected}"
                )
    return sizes


def _concrete(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    free = {name: 1 for dim in spec.shape for name in symbols_of(dim)}
    return tuple(evaluate(dim, {**free, **sizes}) for dim in spec.shape)


def _made_up(rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    # Drawn as f64, which the array is made of.
    needed, there = math.prod(shape) * (8 + spec.dtype.numpy.itemsize), usable_bytes()
    if needed > there:
        raise InvalidArgument(
            f"input {spec}: {list(shape)} is too large: it takes {needed >> 20} MiB of the "
            f"{there >> 20} MiB that this machine has"
        )
    try:
        return _random(rng, spec.dtype, shape)
    except (MemoryError, OverflowError, ValueError) as error:
        raise InvalidArgument(f"input {spec}: {list(shape)} is too large: {error}") from None


def _random(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> Array:
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_int:
        return rng.integers(0, 2, shape).astype(dtype.numpy)
    raise InvalidArgument(f"cannot make up values of type {dtype.value}; give a .npy file")
