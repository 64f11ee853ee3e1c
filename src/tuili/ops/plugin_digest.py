"""Digests of plug-in operators: code compiled with another version of one is compiled again."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tuili.ir import Graph
from tuili.ops.op import Op
from tuili.ops.table import TABLE, find


def plugins_of(graph: Graph) -> dict[str, str]:
    """The plug-in operators of a graph, each with its digest."""
    names = sorted({node.op for node in graph.walk()} - TABLE.keys())
    return {name: digest(row) for name in names if (row := find(name)) is not None}


def is_current(operators: dict[str, str]) -> bool:
    """Whether every operator is here and is what it was."""
    rows = {name: find(name) for name in operators}
    return all(row is not None and digest(row) == operators[name] for name, row in rows.items())


def digest(row: Op) -> str:
    """A hash of a row, of its kernels, and of the files that its functions are in."""
    found = hashlib.sha256()
    signature = (row.name, row.inputs, row.outputs, sorted(row.attrs.items()), dict(row.allow))
    found.update(repr((signature, row.random, row.kernels)).encode())
    for function in (row.infer, row.meaning):
        for part in _sources(inspect.unwrap(function)):
            found.update(part)
    return found.hexdigest()


def _sources(function: Callable[..., Any]) -> Iterator[bytes]:
    yield getattr(function, "__qualname__", type(function).__qualname__).encode()
    code = getattr(function, "__code__", None)
    if code is not None:
        yield code.co_code
        yield _file(code.co_filename)


@cache
def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError:
        return name.encode()  # typed at a prompt
