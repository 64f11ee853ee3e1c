"""`--shape NAME=1x3x224x224`: how input shapes are written on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

import typer

from tuili.errors import InvalidArgument

ShapeOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1x3x224x224",
        help="Dims of an input; a word instead of a number leaves that dim open. Repeatable.",
    ),
]

SizeOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1x3x224x224",
        help="Dims of an input, all of them numbers; open ones are 1 by default. Repeatable.",
    ),
]


def parse_shapes(options: Iterable[str] | None) -> dict[str, tuple[int | str, ...]]:
    """Input name -> dims, from options such as `image=1x3x224x224` or `ids=Nx128`."""
    shapes: dict[str, tuple[int | str, ...]] = {}
    for option in options or ():
        # From the right: names may contain "=", dims may not.
        name, found, dims = option.rpartition("=")
        if not found or not name:
            raise InvalidArgument(f"--shape {option!r}: expected NAME=DIMS, such as x=1x3x224x224")
        shapes[name] = tuple(_dim(text, option) for text in dims.split("x")) if dims else ()
    return shapes


def concrete_shapes(options: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """As `parse_shapes`, where every dim must be a number."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, dims in parse_shapes(options).items():
        numbers = tuple(dim for dim in dims if isinstance(dim, int))
        if len(numbers) != len(dims):
            raise InvalidArgument(
                f"--shape {name}: here every dim must be a number, got {dims}; "
                "`tuili compile` is where dims may stay open"
            )
        shapes[name] = numbers
    return shapes


def _dim(text: str, option: str) -> int | str:
    if text.isdecimal():
        return int(text)
    if text.isidentifier() or option.endswith("=*"):
        return text
    raise InvalidArgument(f"--shape {option!r}: {text!r} is neither a number nor a word")
