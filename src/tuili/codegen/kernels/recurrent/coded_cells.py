"""One step of a CodedLSTM for a few rows of the batch, as C: sums of codes, then the cell.

Weights are packed as for products of codes; their outputs are ordered [D][blocks][gates][V].

    xp     the codes of the state, `stride` from row to row
    part   the input's share of the gates, [gates][H]
"""

from __future__ import annotations

import re
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
ROWS = 4  # rows of the batch that share the weights' way through the registers


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
        """The C function of the blocks from `low` to before `high` of one step."""
        blocks = -(-self.hidden // self.lanes)
        sizes = f"H = {self.hidden}, BLOCKS = {blocks}, PANEL = {self.panel}"
        return "\n".join(
            [
                f"static void {name}(int64_t low, int64_t high,",
                f"    const float *const *part, const {self.dot.ctype} *xp,",
                "    float scale, int32_t zero, float *const *c, float *const *n,",
                f"    float *const *m, int64_t direction, {', '.join(self.parameters)})",
                "{",
                f"    enum {{ {sizes}, EXTRA = {self.extra} }};",
                "    (void)peep;",
                "    for (int64_t block = low; block < high; block++) {",
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

    def call(self, direction: int, rows: int, blocks: str, codes: str) -> str:
        """The call of a step for the rows from `r` on."""
        peep = "peep + direction * LINE * 3" if self.peepholes else "0"
        extra = ["extra", "places", "firsts"] if self.extra else []
        args = [blocks, "part + r", codes, "scale", "middle", "c + r", "n + r", "m + r",
                "direction", "w", "sums_of", "factors", peep, *extra]  # fmt: skip
        return f"tl_coded{rows}_{direction}({', '.join(args)});"

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


def state_codes(dot: Dot, hidden: int, padded: int, lanes: int) -> str:
    """C: `tl_state_codes`, which makes codes of the state of all rows and returns their middle."""
    words = {
        "CODE": dot.ctype,
        "SHIFT": str(dot.shifts[DType.U8]),
        "HIDDEN": str(hidden),
        "PADDED": str(padded),
        "LINE_OF_H": str(-(-hidden // lanes) * lanes),
    }
    return re.sub("|".join(words), lambda word: words[word[0]], _STATE_CODES)


_STATE_CODES = """
static int32_t tl_state_codes(const float *h, int64_t rows, CODE *codes, float *scale_of)
{
    float low = 0.0f, high = 0.0f;
    for (int64_t b = 0; b < rows; b++) {
        low = s_min(low, tl_row_min(h + b * LINE_OF_H, HIDDEN));
        high = s_max(high, tl_row_max(h + b * LINE_OF_H, HIDDEN));
    }
    const float scale = (high - low) / 255.0f, divisor = scale != 0 ? scale : 1.0f;
    const float middle = s_min(s_max(s_round(-low / divisor), 0.0f), 255.0f);
    for (int64_t b = 0; b < rows; b++)
        for (int64_t i = 0; i < HIDDEN; i++) {
            const float code = s_round(h[b * LINE_OF_H + i] / divisor) + middle;
            codes[b * PADDED + i] = (CODE)((int32_t)s_min(s_max(code, 0.0f), 255.0f) + SHIFT);
        }
    *scale_of = scale;
    return (int32_t)middle;
}
"""
