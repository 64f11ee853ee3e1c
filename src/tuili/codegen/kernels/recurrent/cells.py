"""Recurrent cells as C: one step of one direction for a few rows of the batch.

Weights are packed [blocks][K][gates][V]: all gates of V hidden units lie side by side, so that a
block's gates are summed in registers and the cell is applied to them at once.

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
from tuili.ops.table import attributes
from tuili.tensors import DType

Activate: TypeAlias = "Callable[[str], str]"

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


@dataclass(frozen=True, slots=True)
class Cell:
    """What the text of a step is made from."""

    node: Node
    functions: Sequence[Activate]
    rows: int
    peepholes: bool
    registers: int = 32  # of the target

    def step(self, name: str, hidden: int, blocks: int) -> str:
        """The C function of one step."""
        body = {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self.node.op]()
        return "\n".join(
            [
                f"static void {name}(const float *const *part, float *const *h, float *const *n,",
                "    float *const *c, float *const *m, const float *w, const float *w2,",
                "    const float *bias, const float *peep, float *spare)",
                "{",
                f"    enum {{ H = {hidden}, BLOCKS = {blocks} }};",
                "    (void)c, (void)m, (void)w2, (void)bias, (void)peep, (void)spare;",
                *(f"    {line}" for line in body),
                "}",
            ]
        )

    def _sums(self, gates: int, weights: str, source: Sequence[str]) -> list[str]:
        """The sums of a block's gates over the state, in `s{row}_{gate}`."""
        names = [f"s{r}_{g}" for r in range(self.rows) for g in range(gates)]
        copies = max(1, 8 // len(names))
        every = [f"{name}{_mark(copy)}" for copy in range(copies) for name in names]
        lines = [f"vf {', '.join(f'{name} = {{0}}' for name in every)};"]
        together = self._together(gates)
        for first in range(0, gates, together):
            chosen = range(first, min(first + together, gates))
            lines += ["{", *(f"    {line}" for line in self._walk(chosen, gates, weights, source))]
            lines.append("}")
        lines.append(f"{weights} += H * {gates} * V;")
        if copies > 1:
            for name in names:
                lines.append(
                    f"{name} += {' + '.join(f'{name}{_mark(c)}' for c in range(1, copies))};"
                )
        return lines

    def _together(self, gates: int) -> int:
        """Gates whose sums stay in registers beside their weights and a broadcast."""
        fits = (self.registers - 1) // (self.rows + 1)
        return next(n for n in range(gates, 0, -1) if gates % n == 0 and n <= max(fits, 1))

    def _walk(self, chosen: range, gates: int, weights: str, source: Sequence[str]) -> list[str]:
        """The loops over the state for some of the gates."""
        copies = max(1, 8 // (self.rows * gates))
        step = gates * copies
        lines = [f"const float *at_w = {weights};", "int64_t k = 0;"]
        lines.append(f"for (; k + {copies} <= H; k += {copies}, at_w += {step} * V) {{")
        lines += [*self._madds(chosen, gates, copies, source), "}"]
        if copies > 1:
            lines.append(f"for (; k < H; k++, at_w += {gates} * V) {{")
            lines += [*self._madds(chosen, gates, 1, source), "}"]
        return lines

    def _madds(self, chosen: range, gates: int, copies: int, source: Sequence[str]) -> list[str]:
        lines: list[str] = []
        for copy in range(copies):
            for gate in chosen:
                place = copy * gates + gate
                lines.append(f"    const vf w{copy}_{gate} = v_load(at_w + {place} * V);")
            for row in range(self.rows):
                for gate in chosen:
                    name = f"s{row}_{gate}{_mark(copy)}"
                    lines.append(f"    {name} += w{copy}_{gate} * {source[row]}[k + {copy}];")
        return lines

    def _block(self, lines: Sequence[str]) -> list[str]:
        return [
            "for (int64_t block = 0; block < BLOCKS; block++) {",
            "    const int64_t at = block * V;",
            *(f"    {line}" for line in lines),
            "}",
        ]

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

    def _rnn(self) -> list[str]:
        (f,) = self.functions

        def row(r: int) -> list[str]:
            return [
                f"const vf x = s{r}_0 + {self.part(r, 0)};",
                f"v_store(n[{r}] + at, {f('x')});",
            ]

        return self._block([*self._sums(1, "w", self._state("h")), *self._each_row(row)])

    def _lstm(self) -> list[str]:
        return self._block([*self._sums(4, "w", self._state("h")), *self.lstm_rows()])

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

    def _gru(self) -> list[str]:
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
        first = self._block([*self._sums(2, "w", self._state("h")), *self._each_row(gates)])
        second = self._block([*self._sums(1, "w2", reset), *self._each_row(candidate)])
        return [*first, *second]

    def _gru_linear(self) -> list[str]:
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

        return self._block([*self._sums(3, "w", self._state("h")), *self._each_row(row)])


def _mark(copy: int) -> str:
    return f"_{copy}" if copy else ""
