"""The shapes that a caller asks for, in the place of those in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import TypeAlias

from tuili.artifact.manifest import LARGEST_DIM
from tuili.errors import InvalidArgument, nearest
from tuili.ir import Graph, TensorType
from tuili.tensors import Dim, Shape, Sym, parse_dim, shape_text

Shapes: TypeAlias = Mapping[str, Sequence[int | str]]

_EXPECTED = "a number for each dim, or a word to leave it open, such as (1, 3, 'height', 'width')"


def checked_shapes(shapes: object) -> Shapes:
    """What a caller calls shapes, as dims by name; raises InvalidArgument for anything else."""
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        raise InvalidArgument(
            f"shapes is a {type(shapes).__name__}, expected dims by the name of an input, such as "
            "{'image': (1, 3, 224, 224)}"
        )
    given: Mapping[object, object] = shapes
    return {str(name): _dims(str(name), dims) for name, dims in given.items()}


def _dims(name: str, dims: object) -> tuple[int | str, ...]:
    if isinstance(dims, str | bytes) or not isinstance(dims, Iterable):
        raise InvalidArgument(f"input {name!r}: the shape is {dims!r}, expected {_EXPECTED}")
    given: Iterable[object] = dims
    return tuple(_dim(name, dim) for dim in given)


def _dim(name: str, dim: object) -> int | str:
    if isinstance(dim, str):
        return dim
    try:
        number = index(dim)  # pyright: ignore[reportArgumentType] - NumPy's integers are some too
    except TypeError:
        number = -1
    if not 0 <= number <= LARGEST_DIM or isinstance(dim, bool):
        raise InvalidArgument(
            f"input {name!r}: {dim!r} is no dim within 0 to {LARGEST_DIM}; expected {_EXPECTED}"
        )
    return number


def set_shapes(graph: Graph, shapes: Shapes) -> None:
    """Give inputs other shapes; raises InvalidArgument for unknown names and impossible shapes.

    `*` as the only dim gives the open ones of an input names of their own.
    """
    inputs = {value.name: value for value in graph.inputs}
    for name, dims in shapes.items():
        if name not in inputs:
            known = ", ".join(inputs)
            raise InvalidArgument(f"no input {name!r}.{nearest(name, inputs)} Inputs: {known}")
        old = inputs[name].tensor
        if tuple(dims) == ("*",):
            new = _apart(old.shape, list(inputs).index(name))
        else:
            new = tuple(parse_dim(dim) for dim in dims)
        if old.shape is not None and new is not None and not _fits(old.shape, new):
            raise InvalidArgument(
                f"input {name!r} has shape {shape_text(old.shape)}, "
                f"which {shape_text(new)} does not fit"
            )
        if new and any(isinstance(dim, int) and not 0 <= dim <= LARGEST_DIM for dim in new):
            raise InvalidArgument(
                f"input {name!r}: {shape_text(new)} has a dim that is not within 0 to {LARGEST_DIM}"
            )
        inputs[name].type = TensorType(old.dtype, new)


def _apart(shape: Shape | None, at: int) -> Shape | None:
    """The shape of input number `at`, its open dims named after it alone."""
    if shape is None:
        return None
    return tuple(
        dim if isinstance(dim, int) else Sym(f"input{at}_{axis}") for axis, dim in enumerate(shape)
    )


def _fits(old: Sequence[Dim], new: Sequence[Dim]) -> bool:
    same_rank = len(old) == len(new)
    return same_rank and all(
        a == b or not isinstance(a, int) for a, b in zip(old, new, strict=True)
    )
