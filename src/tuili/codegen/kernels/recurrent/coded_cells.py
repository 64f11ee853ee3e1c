"""One step of a CodedLSTM for a few rows of the batch, as C: sums of codes, then the cell.

Weights are packed as for products of codes; their outputs are ordered [D][blocks][gates][V].

    xp     the codes of the state, `stride` from row to row
    part   the input's share of the gates, [gates][H]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.tile import Nest, print_sums
from tuili.codegen.kernels.recurrent.cells import Activate, Cell
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.tensors import DType

GATES = 4


@dataclass(frozen=True, slots=True)
class CodedCell:
    """What the text of a step is made from."""

    node: Node
    functions: Sequence[Activate]
    rows: int
    peepholes: bool
    hidden: int
    lanes: int
    vectors: int  # of a panel of weights
    panel: int  # weights of it
    extra: int  # numbers of an extra step; 0: there are none
    dot: Dot
    nest: Nest

    @property
    def parameters(self) -> list[str]:
        """Of the step's C function, behind those that change."""
        extra = ["const int16_t *extra", "const int32_t *places", "const int32_t *firsts"]
        return [
            f"const {self.dot.weights.c} *w", "const int32_t *sums_of", "const float *factors",
            "const float *peep", *(extra if self.extra else []),
        ]  # fmt: skip

    def step(self, name: str) -> str:
        """The C function of one step."""
        blocks = -(-self.hidden // self.lanes)
        sizes = f"H = {self.hidden}, BLOCKS = {blocks}, PANEL = {self.panel}"
        return "\n".join(
            [
                f"static void {name}(const float *const *part, const {self.dot.ctype} *xp,",
                "    float scale, int32_t zero, float *const *c, float *const *n,",
                f"    float *const *m, int64_t direction, {', '.join(self.parameters)})",
                "{",
                f"    enum {{ {sizes}, EXTRA = {self.extra} }};",
                "    (void)peep;",
                "    for (int64_t block = 0; block < BLOCKS; block++) {",
                "        const int64_t at = block * V, first = direction * BLOCKS + block;",
                f"        int32_t sums[{self.rows}][{GATES} * V];",
                f"        for (int64_t panel = first * {GATES // self.vectors};",
                f"             panel < (first + 1) * {GATES // self.vectors}; panel++) {{",
                *indent(self._panel(), 3),
                "        }",
                *indent([*self._reals(), *self._rows()], 2),
                "    }",
                "}",
            ]
        )

    def _panel(self) -> list[str]:
        """The sums of the codes over one panel, in `sums`."""
        shift = self.dot.shifts[DType.U8]
        lines = [
            f"const {self.dot.weights.c} *const wn = w + panel * PANEL;",
            f"const int64_t oc = panel * {self.vectors} * V, gate = oc - first * {GATES} * V;",
            *self.nest.extra_range,
        ]
        for v in range(self.vectors):
            place = f"*(const vi_any *)(sums_of + oc + {v} * V)"
            lines.append(f"const vi start{v} = v_iset1(-(zero + {shift})) * {place};")
        lines += print_sums(self.dot, self.nest, Tile(self.rows, self.vectors), self.rows)
        for row in range(self.rows):
            for v in range(self.vectors):
                lines.append(f"*(vi_any *)&sums[{row}][gate + {v} * V] = acc{row}_{v};")
        return lines

    def _reals(self) -> list[str]:
        """The recurrent products as real numbers, `s{row}_{gate}`."""
        lines: list[str] = []
        for gate in range(GATES):
            factor = f"v_load(factors + (first * {GATES} + {gate}) * V)"
            lines.append(f"const vf factor{gate} = scale * {factor};")
            for row in range(self.rows):
                total = f"v_to_float(*(const vi_any *)&sums[{row}][{gate} * V])"
                lines.append(f"const vf s{row}_{gate} = v_exact({total} * factor{gate});")
        return lines

    def _rows(self) -> list[str]:
        return _PlainParts(self.node, self.functions, self.rows, self.peepholes).lstm_rows()


class _PlainParts(Cell):
    """A cell whose share of the inputs lies as a product leaves it."""

    __slots__ = ()

    def part(self, row: int, gate: int) -> str:
        place = f"part[{row}] + {gate} * H + at"
        return f"(at + V <= H ? v_load({place}) : v_loadn({place}, H - at))"
