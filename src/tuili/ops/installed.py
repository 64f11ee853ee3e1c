"""Where plug-in operators come from: an argument, installed packages, the environment.

Nothing registers itself at import time: packages declare entry points of the group
`tuili.operators`, and the first model that uses an operator which the table does not know makes
them load. `$TUILI_OPERATORS` names more, for trying a module out: `module:attribute, ...`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TypeAlias

from tuili.errors import AlreadyExists, InvalidArgument
from tuili.ops.op import Op

GROUP = "tuili.operators"
VARIABLE = "TUILI_OPERATORS"
Rows: TypeAlias = "MappingProxyType[str, Op]"
_NONE: Rows = MappingProxyType({})
_given: ContextVar[Rows] = ContextVar("given", default=_NONE)


def given() -> tuple[Op, ...]:
    """The operators of the `using` around, if any."""
    return tuple(_given.get().values())


@contextmanager
def using(operators: Iterable[Op], taken: Collection[str]) -> Generator[None]:
    """Let `find` see more operators in this block; raises AlreadyExists for names in `taken`.

    They go before installed ones of the same name.
    """
    rows = _collected([("operators=", operators)], taken)
    token = _given.set(MappingProxyType({**_given.get(), **rows}))
    try:
        yield
    finally:
        _given.reset(token)


def find(name: str, taken: Collection[str]) -> Op | None:
    """The plug-in operator of a name, which holds a domain; `taken` are the names of the table."""
    if "::" not in name:
        return None
    found = _given.get().get(name)
    return found or _installed(os.environ.get(VARIABLE, ""), frozenset(taken)).get(name)


def names(taken: Collection[str]) -> list[str]:
    """The names of all plug-in operators, for hints."""
    return [*_given.get(), *_installed(os.environ.get(VARIABLE, ""), frozenset(taken))]


@cache
def _installed(variable: str, taken: frozenset[str]) -> Rows:
    return _collected(map(_load, _entries(variable)), taken)


def _entries(variable: str) -> Iterator[EntryPoint]:
    yield from sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    for value in filter(None, map(str.strip, variable.split(","))):
        yield EntryPoint(f"${VARIABLE}", value, GROUP)


def _load(entry: EntryPoint) -> tuple[str, object]:
    package = f" of package {entry.dist.name!r}" if entry.dist else ""
    where = f"plug-in {entry.name!r}{package} ({entry.value})"
    try:
        return where, entry.load()
    except Exception as error:
        raise InvalidArgument(
            f"{where} cannot be loaded: {type(error).__name__}: {error}. "
            "Correct it, uninstall it, or unset what names it"
        ) from error


def _collected(sources: Iterable[tuple[str, object]], taken: Collection[str]) -> Rows:
    """The rows by name; raises for what is no row, and for a name that exists."""
    rows: dict[str, Op] = {}
    origins: dict[str, str] = {}
    for where, found in sources:
        for row in _rows(where, found):
            if row.name in taken:
                raise AlreadyExists(
                    f"{where}: tuili has an operator {row.name!r} already; choose another name"
                )
            if row.name in rows and rows[row.name] is not row:
                raise AlreadyExists(
                    f"{where}: operator {row.name!r} comes from {origins[row.name]} as well;"
                    " rename or remove one of them"
                )
            rows[row.name], origins[row.name] = row, where
    return MappingProxyType(rows)


def _rows(where: str, found: object) -> Iterator[Op]:
    listed: Iterable[object] = (
        found  # pyright: ignore[reportUnknownVariableType]
        if isinstance(found, Iterable) and not isinstance(found, str | bytes)
        else (found,)
    )
    for row in listed:
        if not isinstance(row, Op):
            raise InvalidArgument(
                f"{where}: found {row!r}; expected operators made by `tuili.operator`, one or a"
                " list of them"
            )
        yield row
