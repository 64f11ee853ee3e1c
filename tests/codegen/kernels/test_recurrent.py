"""Recurrent kernels: cells, directions, lengths, peepholes, layouts, weights at run time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const
from tuili.codegen.kernels.recurrent.cells import gates_together, packed_together, tile_rows
from tuili.codegen.kernels.recurrent.project import project_tile
from tuili.codegen.kernels.recurrent.tiles import MOST_ROWS, tiles_used

RANDOM = np.random.default_rng(0)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


def cell(
    op: str,
    *,
    time: int = 5,
    batch: int = 3,
    inputs: int = 7,
    hidden: int = 20,
    directions: int = 1,
    lengths: bool = False,
    states: bool = True,
    peepholes: bool = False,
    constant: bool = True,
    dims: Any = None,
    **attrs: Any,
) -> Case:
    gates = GATES[op]
    keep = Const if constant else (lambda array: array)
    batch_first = bool(attrs.get("layout"))
    shape = (batch, time, inputs) if batch_first else (time, batch, inputs)
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    values: list[Any] = [
        floats(*shape),
        keep(floats(directions, gates * hidden, inputs)),
        keep(floats(directions, gates * hidden, hidden)),
        keep(floats(directions, 2 * gates * hidden)),
        np.array([time, 2, 4, 1, 3][:batch], np.int32) if lengths else None,
        floats(*state) if states else None,
    ]
    if op == "LSTM":
        values.append(floats(*state) if states else None)
        values.append(keep(floats(directions, 3 * hidden)) if peepholes else None)
    names = {0: dims} if dims else {}
    attrs = {"hidden_size": hidden, **attrs}
    return Case(op, values, attrs, names, outputs=3 if op == "LSTM" else 2, tolerance=1e-5)


CASES: dict[str, Case] = {}
for op in GATES:
    CASES[f"{op}"] = cell(op)
    CASES[f"{op} one row"] = cell(op, batch=1, hidden=64, inputs=33)
    CASES[f"{op} five rows"] = cell(op, batch=5)
    CASES[f"{op} eleven rows both ways"] = cell(
        op, batch=11, directions=2, direction="bidirectional"
    )
    CASES[f"{op} more rows than walk together"] = cell(op, batch=MOST_ROWS + 7, time=3)
    CASES[f"{op} many rows at run time"] = cell(op, dims=["T", "B", 7], batch=MOST_ROWS + 15)
    CASES[f"{op} reverse"] = cell(op, direction="reverse", lengths=True)
    CASES[f"{op} both ways"] = cell(op, directions=2, direction="bidirectional", lengths=True)
    CASES[f"{op} no state"] = cell(op, states=False)
    CASES[f"{op} batch first"] = cell(op, layout=1, directions=2, direction="bidirectional")
    CASES[f"{op} weights at run time"] = cell(op, constant=False, peepholes=True)
    CASES[f"{op} sizes at run time"] = cell(op, dims=["T", "B", 7], batch=4, states=False)
    CASES[f"{op} clip"] = cell(op, clip=0.2)
CASES["LSTM peepholes"] = cell("LSTM", peepholes=True)
CASES["LSTM coupled"] = cell("LSTM", input_forget=1)
CASES["LSTM activations"] = cell("LSTM", activations=("HardSigmoid", "Softsign", "Relu"))
CASES["RNN affine"] = cell(
    "RNN", activations=("Affine",), activation_alpha=(0.5,), activation_beta=(0.1,)
)
CASES["GRU linear"] = cell("GRU", linear_before_reset=1)
CASES["GRU linear both ways"] = cell(
    "GRU", linear_before_reset=1, directions=2, direction="bidirectional", batch=4
)


# Few rows of many units: threads share each step.
SHARED: dict[str, Case] = {}
for op, units in (("LSTM", 240), ("GRU", 270), ("RNN", 450)):
    # Steps of so many units of an RNN make much of little: two of them.
    more: dict[str, Any] = {"GRU": {"linear_before_reset": 1}, "RNN": {"time": 2}}.get(op, {})
    SHARED[op] = cell(op, batch=1, hidden=units, **more)
    SHARED[f"{op} a step"] = cell(op, batch=1, hidden=units, **more | {"time": 1})
    SHARED[f"{op} reverse"] = cell(op, hidden=units, direction="reverse", **more)
    SHARED[f"{op} batch first"] = cell(op, hidden=units, layout=1, states=False, **more)
    SHARED[f"{op} any time"] = cell(op, hidden=units, dims=["T", 3, 7], **more)
    SHARED[f"{op} without its last states"] = replace(
        cell(op, batch=1, hidden=units, states=False, **more), outputs=1
    )
SHARED["GRU in two phases"] = cell("GRU", batch=1, hidden=370)
SHARED["GRU in two phases, reverse"] = cell("GRU", hidden=270, direction="reverse")
SHARED["GRU in two phases, any time, no bias"] = cell(
    "GRU", batch=4, hidden=256, states=False, layout=1, dims=[4, "T", 7]
)
SHARED["LSTM peepholes"] = cell("LSTM", hidden=256, peepholes=True)
SHARED["LSTM weights at run time"] = cell("LSTM", hidden=240, constant=False)


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda threads: f"{threads} threads")
def shared(request: pytest.FixtureRequest) -> Cases:
    return Cases(SHARED, threads=request.param)


@pytest.mark.parametrize("name", SHARED)
def test_steps_that_threads_share_give_the_same(shared: Cases, name: str) -> None:
    shared.check(name)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("gates", GATES.values())
def test_sums_weights_and_a_broadcast_fit_the_registers(gates: int, registers: int) -> None:
    rows, together = project_tile(gates, registers)
    assert gates % together == 0
    assert rows >= 4
    assert rows * together + together + 1 <= registers


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("gates", [1, 2, 3, 4])
def test_tiles_of_rows_fit_the_registers_and_read_whole_pieces(gates: int, registers: int) -> None:
    packed = packed_together(gates, registers)
    for rows in tile_rows(gates, registers):
        together = gates_together(gates, rows, registers)
        assert rows * together + together + 1 <= registers
        assert together % packed == 0 or packed % together == 0


@pytest.mark.parametrize(
    ("most", "rest", "used"),
    [
        (1, 1, [1]),
        (2, 2, [2]),
        (6, 2, [6, 4, 2]),
        (8, 0, [6, 4, 2]),
        (11, 3, [6, 4, 2, 1]),
        (32, None, [6, 4, 2, 1]),
    ],
)
def test_only_tiles_that_a_thread_may_need_are_printed(
    most: int, rest: int | None, used: list[int]
) -> None:
    assert tiles_used([6, 4, 2, 1], most, rest) == used
