"""Dims in C have the value that they have in Python, below zero too."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.codegen.compiled import BEST
from tuili.codegen.c_dims import c_dim
from tuili.codegen.prelude import prelude
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.tensors import evaluate, parse_dim

DIMS = (
    "7",
    "3000000000",
    "a",
    "a - b",
    "-a*b + 3",
    "(a + 3)//4*4",
    "(a - b)//3",
    "(b - a) % 4",
    "-(a//b) - 1",
    "max(a, 2*b) - min(a - 9, b)",
    "a*(b + 1)*(a - b)",
    "a//2 % 3",
)
VALUES = [(a, b) for a in (1, 2, 7, 16) for b in (1, 3, 5, 20)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    functions = [
        f"int64_t dim{index}(int64_t a, int64_t b) {{ (void)a, (void)b; return {text}; }}"
        for index, text in enumerate(c_dim(parse_dim(dim)) for dim in DIMS)
    ]
    path = Path(tmp_path_factory.mktemp("dims")) / "dims.so"
    text = "\n".join([prelude(BEST), *functions])
    Toolchain.find().build([Unit("dims", text, ("-fvisibility=default", *BEST.flags))], path)
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("dim", DIMS)
def test_c_and_python_agree(library: ctypes.CDLL, dim: str) -> None:
    function = library[f"dim{DIMS.index(dim)}"]
    function.restype = ctypes.c_int64
    for a, b in VALUES:
        got = function(ctypes.c_int64(a), ctypes.c_int64(b))
        assert got == evaluate(parse_dim(dim), {"a": a, "b": b})
