"""Recurrent cells as C: one block of a step of one direction for a few rows of the batch.

Weights are packed [blocks][gates / G][K][G][V], G gates of V hidden units side by side: a block's
gates are summed in registers and the cell is applied to them at once.

    part   the input's share of the gates, [blocks][gates][V]
    h, c   the state; n, m the next state (c and m for LSTM only)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tuili.codegen.element_types import literal
from tuili.errors import Unsupported
from tuili.ir import Node
from tuili.ops.table import attr, attributes
from tuili.tensors import DType

Activate: TypeAlias = "Callable[[str], str]"

LINE_FLOATS = 16  # of a line of the cache
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_OF_LSTM = ("Sigmoid", "Tanh", "Tanh")
_DEFAULTS = {
    "RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": _OF_LSTM, "CodedLSTM": _OF_LSTM,
}  # fmt: skip

# name: (template, default alpha, default beta)
_ACTIVATIONS: dict[str, tuple[str, float, float]] = {
    "relu": ("v_max(v_set1(0.0f), {x})", 0, 0),
    "tanh": ("v_tanh({x})", 0, 0),
    "sigmoid": ("v_sigmoid({x})", 0, 0),
    "softsign": ("({x}) / (1.0f + v_abs({x}))", 0, 0),
    "softplus": ("v_softplus({x})", 0, 0),
    "leakyrelu": ("v_select(({x}) < v_set1(0.0f), {a} * ({x}), {x})", 0.01, 0),
    "elu": ("v_elu({x}, v_set1({a}))", 1.0, 0),
    "affine": ("{a} * ({x}) + {b}", 1.0, 0.0),
    "scaledtanh": ("{a} * v_tanh({b} * ({x}))", 1.0, 1.0),
    "hardsigmoid": ("v_hard_sigmoid({x}, v_set1({a}), v_set1({b}))", 0.2, 0.5),
    "thresholdedrelu": ("v_select(({x}) > v_set1({a}), {x}, v_set1(0.0f))", 1.0, 0),
}


def has_two_phases(node: Node) -> bool:
    """Whether a step needs its reset gates before it multiplies by the weights of the candidate."""
    return node.op == "GRU" and not attr(node, "linear_before_reset")


def activations(node: Node, direction: int) -> list[Activate]:
    """The activation functions of a direction; each gives C for a C expression."""
    attrs = attributes(node)
    defaults = _DEFAULTS[node.op]
    first = direction * len(defaults)
    names = list(attrs["activations"] or ())[first : first + len(defaults)] or defaults
    return [_activation(node, attrs, name, first + index) for index, name in enumerate(names)]


def _activation(node: Node, attrs: Mapping[str, Any], name: str, place: int) -> Activate:
    row = _ACTIVATIONS.get(name.lower())
    if row is None:
        known = ", ".join(_ACTIVATIONS)
        raise Unsupported(f"{node.label}: unknown activation {name!r}; known: {known}")

    def parameter(key: str, default: float) -> str:
        values = attrs[key] or ()
        return literal(values[place] if place < len(values) else default, DType.F32)

    alpha, beta = parameter("activation_alpha", row[1]), parameter("activation_beta", row[2])
    limit = attrs["clip"]

    def write(x: str) -> str:
        if limit:
            bound = literal(float(limit), DType.F32)
            x = f"v_min(v_set1({bound}), v_max(v_set1(-{bound}), {x}))"
        return row[0].format(x=x, a=alpha, b=beta)

    return write


def gates_together(gates: int, rows: int, registers: int) -> int:
    """Gates whose sums stay in registers beside their weights and a broadcast."""
    fits = (registers - 1) // (rows + 1)
    return next(n for n in range(gates, 0, -1) if gates % n == 0 and n <= max(fits, 1))


def tile_rows(gates: int, registers: int) -> list[int]:
    """Rows of tiles, the largest first: the one with the most sums in registers, then 4, 2, 1."""
    largest = max((8, 6, 4), key=lambda rows: rows * gates_together(gates, rows, registers))
    return [largest, *(rows for rows in (4, 2, 1) if rows < largest)]


def packed_together(gates: int, registers: int) -> int:
    """Gates whose weights lie side by side: what the largest tile reads is one piece of memory.

    Read in steps over the others, it would take every other line of the first-level cache's sets.
    """
    return gates_together(gates, tile_rows(gates, registers)[0], registers)


@dataclass(frozen=True, slots=True)
class Phase:
    """Gates whose weights lie together at `w`, and what is done to a block of them at `at`."""

    gates: int
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Cell:
    """What the text of a step of a few rows is made from."""

    node: Node
    functions: Sequence[Activate]
    rows: int
    peepholes: bool
    registers: int = 32  # of the target

    @property
    def phases(self) -> list[Phase]:
        """What a step does, one after another: each goes over all blocks."""
        return {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self.node.op]()

    def _sums(self, gates: int, source: Sequence[str]) -> list[str]:
        """The sums of a block's gates over the state, in `s{row}_{gate}`."""
        names = [f"s{r}_{g}" for r in range(self.rows) for g in range(gates)]
        copies = max(1, 8 // len(names))
        every = [f"{name}{_mark(copy)}" for copy in range(copies) for name in names]
        lines = self._ahead(GATES[self.node.op])
        lines.append(f"vf {', '.join(f'{name} = {{0}}' for name in every)};")
        together = self._together(gates)
        for first in range(0, gates, together):
            chosen = range(first, min(first + together, gates))
            lines += ["{", *(f"    {line}" for line in self._walk(chosen, gates, source))]
            lines.append("}")
        if copies > 1:
            for name in names:
                lines.append(
                    f"{name} += {' + '.join(f'{name}{_mark(c)}' for c in range(1, copies))};"
                )
        return lines

    def _ahead(self, gates: int) -> list[str]:
        """Fetches what the rows' inputs amount to, which lies far apart, while sums are made."""
        return [
            f"for (int64_t line = 0; line < {gates} * V; line += {LINE_FLOATS})",
            f"    for (int64_t r = 0; r < {self.rows}; r++)",
            f"        __builtin_prefetch(part[r] + {gates} * at + line);",
        ]

    def _together(self, gates: int) -> int:
        """Gates whose sums stay in registers beside their weights and a broadcast."""
        return gates_together(gates, self.rows, self.registers)

    def _walk(self, chosen: range, gates: int, source: Sequence[str]) -> list[str]:
        """The loops over the state for some of the gates."""
        copies = max(1, 8 // (self.rows * gates))
        packed = packed_together(gates, self.registers)
        lines = ["const float *at_w = w;", "int64_t k = 0;"]
        lines.append(f"for (; k + {copies} <= H; k += {copies}, at_w += {packed * copies} * V) {{")
        lines += [*self._madds(chosen, gates, copies, source), "}"]
        if copies > 1:
            lines.append(f"for (; k < H; k++, at_w += {packed} * V) {{")
            lines += [*self._madds(chosen, gates, 1, source), "}"]
        return lines

    def _madds(self, chosen: range, gates: int, copies: int, source: Sequence[str]) -> list[str]:
        lines: list[str] = []
        packed = packed_together(gates, self.registers)
        for copy in range(copies):
            for gate in chosen:
                row, column = gate // packed, copy * packed + gate % packed
                place = f"({row} * H * {packed} + {column}) * V" if row else f"{column} * V"
                lines.append(f"    const vf w{copy}_{gate} = v_load(at_w + {place});")
            for row in range(self.rows):
                for gate in chosen:
                    name = f"s{row}_{gate}{_mark(copy)}"
                    lines.append(f"    {name} += w{copy}_{gate} * {source[row]}[k + {copy}];")
        return lines

    def _each_row(self, write: Callable[[int], Sequence[str]]) -> list[str]:
        lines: list[str] = []
        for row in range(self.rows):
            lines += ["{", *(f"    {line}" for line in write(row)), "}"]
        return lines

    def _state(self, name: str) -> list[str]:
        return [f"{name}[{row}]" for row in range(self.rows)]

    def part(self, row: int, gate: int) -> str:
        """C: the share of the inputs in a gate."""
        gates = GATES[self.node.op]
        return f"v_load(part[{row}] + {gates} * at + {gate} * V)"

    def _rnn(self) -> list[Phase]:
        (f,) = self.functions

        def row(r: int) -> list[str]:
            return [
                f"const vf x = s{r}_0 + {self.part(r, 0)};",
                f"v_store(n[{r}] + at, {f('x')});",
            ]

        return [Phase(1, [*self._sums(1, self._state("h")), *self._each_row(row)])]

    def _lstm(self) -> list[Phase]:
        return [Phase(4, [*self._sums(4, self._state("h")), *self.lstm_rows()])]

    def lstm_rows(self) -> list[str]:
        """All rows of an LSTM's block, behind the sums of its gates."""
        f, g, h = self.functions
        coupled = bool(attributes(self.node)["input_forget"])

        def peep(gate: int, state: str) -> str:
            return f" + v_load(peep + 3 * at + {gate} * V) * {state}" if self.peepholes else ""

        def row(r: int) -> list[str]:
            forget = "1.0f - input" if coupled else f("forget_sum")
            return [
                f"const vf old = v_load(c[{r}] + at);",
                f"const vf input_sum = s{r}_0 + {self.part(r, 0)}{peep(0, 'old')};",
                f"const vf forget_sum = s{r}_2 + {self.part(r, 2)}{peep(2, 'old')};",
                f"const vf candidate_sum = s{r}_3 + {self.part(r, 3)};",
                f"const vf input = {f('input_sum')}, forget = {forget};",
                "(void)forget_sum;",
                f"const vf cell = forget * old + input * {g('candidate_sum')};",
                f"const vf output_sum = s{r}_1 + {self.part(r, 1)}{peep(1, 'cell')};",
                f"v_store(m[{r}] + at, cell);",
                f"v_store(n[{r}] + at, {f('output_sum')} * {h('cell')});",
            ]

        return self._each_row(row)

    def _gru(self) -> list[Phase]:
        if attributes(self.node)["linear_before_reset"]:
            return self._gru_linear()
        f, g = self.functions

        def gates(r: int) -> list[str]:
            return [
                f"const vf update_sum = s{r}_0 + {self.part(r, 0)};",
                f"const vf reset_sum = s{r}_1 + {self.part(r, 1)};",
                f"v_store(spare + {2 * r} * BLOCKS * V + at, {f('update_sum')});",
                f"v_store(spare + {2 * r + 1} * BLOCKS * V + at,",
                f"    {f('reset_sum')} * v_load(h[{r}] + at));",
            ]

        def candidate(r: int) -> list[str]:
            return [
                f"const vf update = v_load(spare + {2 * r} * BLOCKS * V + at);",
                f"const vf sum = s{r}_0 + {self.part(r, 2)};",
                f"const vf kept = update * v_load(h[{r}] + at);",
                f"v_store(n[{r}] + at, (1.0f - update) * {g('sum')} + kept);",
            ]

        reset = [f"(spare + {2 * row + 1} * BLOCKS * V)" for row in range(self.rows)]
        first = [*self._sums(2, self._state("h")), *self._each_row(gates)]
        second = [*self._sums(1, reset), *self._each_row(candidate)]
        return [Phase(2, first), Phase(1, second)]

    def _gru_linear(self) -> list[Phase]:
        f, g = self.functions

        def row(r: int) -> list[str]:
            return [
                f"const vf update_sum = s{r}_0 + {self.part(r, 0)};",
                f"const vf reset_sum = s{r}_1 + {self.part(r, 1)};",
                f"const vf update = {f('update_sum')}, reset = {f('reset_sum')};",
                f"const vf inner = s{r}_2 + v_load(bias + 6 * at + 5 * V);",
                f"const vf sum = reset * inner + {self.part(r, 2)};",
                f"const vf kept = update * v_load(h[{r}] + at);",
                f"v_store(n[{r}] + at, (1.0f - update) * {g('sum')} + kept);",
            ]

        return [Phase(3, [*self._sums(3, self._state("h")), *self._each_row(row)])]


def _mark(copy: int) -> str:
    return f"_{copy}" if copy else ""
