"""Recurrent networks: RNN, GRU, LSTM, both directions, sequence lengths, and ReverseSequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tuili.ops.activations import elu, hard_sigmoid, leaky_relu, sigmoid, softplus
from tuili.ops.op import Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array

# One step: (input part of the gates, states) -> states; the first state is the output.
Step: TypeAlias = "Callable[[Array, list[Array]], list[Array]]"
Project: TypeAlias = "Callable[[Array, int], Array]"
Activation: TypeAlias = "Callable[[Array], Array]"


# -- activations ---------------------------------------------------------------------------


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    table: dict[str, Activation] = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "sigmoid": sigmoid,
        "softsign": lambda x: x / (1 + np.abs(x)),
        "softplus": softplus,
        "leakyrelu": lambda x: leaky_relu(x, given(alpha, 0.01)),
        "elu": lambda x: elu(x, given(alpha, 1.0)),
        "affine": lambda x: given(alpha, 1.0) * x + given(beta, 0.0),
        "scaledtanh": lambda x: given(alpha, 1.0) * np.tanh(given(beta, 1.0) * x),
        "hardsigmoid": lambda x: hard_sigmoid(x, given(alpha, 0.2), given(beta, 0.5)),
        "thresholdedrelu": lambda x: np.where(x > given(alpha, 1.0), x, 0),
    }
    if name.lower() not in table:
        raise ValueError(f"unknown activation {name!r}; expected one of {', '.join(table)}")
    return table[name.lower()]


def _activations(
    attrs: dict[str, Any], defaults: Sequence[str], direction: int
) -> list[Activation]:
    count = len(defaults)
    names = attrs.get("activations")
    names = list(names)[direction * count : (direction + 1) * count] if names else [*defaults]
    names = names or [*defaults]

    def parameter(key: str, index: int) -> float | None:
        values = attrs.get(key) or ()
        place = direction * count + index
        return values[place] if place < len(values) else None

    chosen = (
        _activation(name, parameter("activation_alpha", i), parameter("activation_beta", i))
        for i, name in enumerate(names)
    )
    limit = float(attrs.get("clip") or np.inf)
    return [lambda x, f=function: f(np.clip(x, -limit, limit)) for function in chosen]


# -- the walk over time --------------------------------------------------------------------


def _walk(
    x: Array, lengths: Array | None, states: list[Array], step: Step, *, backward: bool
) -> tuple[Array, list[Array]]:
    """Outputs [T, B, H] and last states of one direction over gate inputs [T, B, G]."""
    total, batch = x.shape[:2]
    ends = np.full(batch, total) if lengths is None else lengths.astype(int)
    if np.any((ends < 0) | (ends > total)):
        raise ValueError(f"sequence_lens {ends.tolist()}; expected 0 to {total}")
    result = np.zeros((total, batch, states[0].shape[-1]), x.dtype)
    rows = np.arange(batch)
    for time in range(total):
        live = time < ends
        # A reversed sequence starts at its own last element.
        place = np.where(live, ends - 1 - time, time) if backward else np.full(batch, time)
        stepped = step(x[place, rows], states)
        pairs = zip(stepped, states, strict=True)
        states = [np.where(live[:, None], new, old) for new, old in pairs]
        result[place, rows] = np.where(live[:, None], states[0], 0)
    return result, states


def _rows_times(W: Array) -> Project:
    """Products of the inputs with the weights of a direction, [D, gates, input]."""
    return lambda x, direction: x @ W[direction].astype(x.dtype).T


def run_cells(
    X: Array,
    project: Project,
    gates: int,
    B: Array | None,
    lengths: Array | None,
    initial: list[Array | None],
    make_step: Callable[[int, Array], Step],
    attrs: dict[str, Any],
) -> tuple[Array, ...]:
    """All directions of a network.

    `project(x, direction)` gives the input part of the gates, `make_step(direction, bias)` the
    cell of a direction with its recurrent bias.
    """
    batch_first = bool(attrs["layout"])
    x = X.swapaxes(0, 1) if batch_first else X
    directions = 2 if attrs["direction"] == "bidirectional" else 1
    hidden = attrs["hidden_size"]
    kind = np.float64 if X.dtype == np.float64 else np.float32
    outputs: list[Array] = []
    finals: list[list[Array]] = []
    for direction in range(directions):
        bias = np.zeros(2 * gates, kind) if B is None else B[direction].astype(kind)
        backward = attrs["direction"] == "reverse" or direction == 1
        states = [
            np.zeros((x.shape[1], hidden), kind)
            if state is None
            else (state.swapaxes(0, 1) if batch_first else state)[direction].astype(kind)
            for state in initial
        ]
        parts = project(x.astype(kind), direction) + bias[:gates]
        step = make_step(direction, bias[gates:])
        y, last = _walk(parts, lengths, states, step, backward=backward)
        outputs.append(y)
        finals.append(last)
    y = np.stack(outputs, 1)
    ends = [np.stack(states) for states in zip(*finals, strict=True)]
    if batch_first:
        return (y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in ends))
    return (y, *ends)


# -- cells ---------------------------------------------------------------------------------


def _rnn(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    lens: Array | None = None,
    initial_h: Array | None = None,
    **attrs: Any,
) -> tuple[Array, ...]:
    def make_step(direction: int, bias: Array) -> Step:
        (f,) = _activations(attrs, ["Tanh"], direction)
        r = R[direction].T
        return lambda x, states: [f(x + states[0] @ r + bias)]

    settled = _sized(attrs, R)
    return run_cells(X, _rows_times(W), W.shape[1], B, lens, [initial_h], make_step, settled)


def _gru(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    lens: Array | None = None,
    initial_h: Array | None = None,
    **attrs: Any,
) -> tuple[Array, ...]:
    n = R.shape[-1]

    def make_step(direction: int, bias: Array) -> Step:
        f, g = _activations(attrs, ["Sigmoid", "Tanh"], direction)
        r = R[direction].T

        def step(x: Array, states: list[Array]) -> list[Array]:
            h = states[0]
            gates = x[:, : 2 * n] + h @ r[:, : 2 * n] + bias[: 2 * n]
            z, reset = f(gates[:, :n]), f(gates[:, n:])
            if attrs["linear_before_reset"]:
                inner = reset * (h @ r[:, 2 * n :] + bias[2 * n :])
            else:
                inner = (reset * h) @ r[:, 2 * n :] + bias[2 * n :]
            candidate = g(x[:, 2 * n :] + inner)
            return [(1 - z) * candidate + z * h]

        return step

    settled = _sized(attrs, R)
    return run_cells(X, _rows_times(W), W.shape[1], B, lens, [initial_h], make_step, settled)


def _lstm(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    **attrs: Any,
) -> tuple[Array, ...]:
    n = R.shape[-1]
    settled = _sized(attrs, R)
    make_step = lstm_cell(_rows_times(R), n, P, settled)
    states = [initial_h, initial_c]
    return run_cells(X, _rows_times(W), 4 * n, B, lens, states, make_step, settled)


def lstm_cell(
    recur: Project, n: int, P: Array | None, attrs: dict[str, Any]
) -> Callable[[int, Array], Step]:
    """The LSTM cell of each direction; `recur(h, direction)` is the recurrent product."""

    def make_step(direction: int, bias: Array) -> Step:
        f, g, h_ = _activations(attrs, ["Sigmoid", "Tanh", "Tanh"], direction)
        peep = np.zeros(3 * n, bias.dtype) if P is None else P[direction]

        def step(x: Array, states: list[Array]) -> list[Array]:
            h, c = states
            gates = x + recur(h, direction) + bias
            i, o, forget, candidate = (gates[:, k * n : (k + 1) * n] for k in range(4))
            i = f(i + peep[:n] * c)
            forget = 1 - i if attrs["input_forget"] else f(forget + peep[2 * n :] * c)
            c = forget * c + i * g(candidate)
            o = f(o + peep[n : 2 * n] * c)
            return [o * h_(c), c]

        return step

    return make_step


def _sized(attrs: dict[str, Any], R: Array) -> dict[str, Any]:
    return {**attrs, "hidden_size": attrs["hidden_size"] or R.shape[-1]}


# -- shapes --------------------------------------------------------------------------------


def recurrent_shape(gates: int) -> Any:
    """The rule for a cell with so many gates."""

    def rule(site: Site) -> list[Result]:
        x, w, r = site.need_rank(0, 3), site.need_rank(1, 3), site.need_rank(2, 3)
        directions = 2 if site.attr("direction") == "bidirectional" else 1
        site.same(w[0], directions, f"directions of W for direction {site.attr('direction')!r}")
        hidden = site.attr("hidden_size") or r[2]
        site.same(w[1], hidden * gates, f"rows of W against {gates} gates of {hidden}")
        site.same(w[2], x[2], "the input size of W against X")
        site.same(r[1], hidden * gates, f"rows of R against {gates} gates of {hidden}")
        site.same(r[2], hidden, "columns of R against the hidden size")
        if site.attr("layout"):
            y = (x[0], x[1], directions, hidden)
            state = (x[0], directions, hidden)
        else:
            y = (x[0], directions, x[1], hidden)
            state = (directions, x[1], hidden)
        batch = x[0] if site.attr("layout") else x[1]
        extras = ((3, (directions, 2 * gates * hidden)), (4, (batch,)), (5, state), (6, state))
        for index, shape in (*extras, (7, (directions, 3 * hidden))):
            if site.has(index):
                for dim, whole in zip(site.need_rank(index, len(shape)), shape, strict=True):
                    site.same(dim, whole, f"input {index} ({site.op.inputs[index].name})")
        results: list[Result] = [y, state, state]
        return results[: len(site.op.outputs)]

    return rule


def _reverse_sequence(x: Array, sequence_lens: Array, batch_axis: int, time_axis: int) -> Array:
    result = np.moveaxis(x, (batch_axis, time_axis), (0, 1)).copy()
    for row, length in zip(result, sequence_lens.tolist(), strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(result, (0, 1), (batch_axis, time_axis))


def _reverse_sequence_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    (rows,) = site.need_rank(1, 1)
    axis = site.axis(site.attr("batch_axis"), len(shape))
    site.same(rows, shape[axis], "a length a row of the batch")
    return [shape]


RECURRENT_ATTRS: dict[str, Any] = {
    "activation_alpha": None,
    "activation_beta": None,
    "activations": None,
    "clip": None,
    "direction": "forward",
    "hidden_size": None,
    "layout": 0,
}
_INPUTS = "X W R B? sequence_lens?:i32 initial_h?"


def _row(name: str, meaning: Any, gates: int, inputs: str, outputs: str, **attrs: Any) -> Op:
    return op(
        name,
        inputs,
        outputs,
        recurrent_shape(gates),
        meaning,
        allow="float",
        attrs={**RECURRENT_ATTRS, **attrs},
    )


ROWS = (
    _row("RNN", _rnn, 1, _INPUTS, "Y Y_h"),
    _row("GRU", _gru, 3, _INPUTS, "Y Y_h", linear_before_reset=0),
    _row("LSTM", _lstm, 4, _INPUTS + " initial_c? P?", "Y Y_h Y_c", input_forget=0),
    op(
        "ReverseSequence",
        "input sequence_lens:i64",
        "Y",
        _reverse_sequence_shape,
        _reverse_sequence,
        attrs={"batch_axis": 1, "time_axis": 0},
    ),
)
