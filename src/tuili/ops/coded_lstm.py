"""CodedLSTM: an LSTM whose state is quantized in every step and meets weights in codes.

What DynamicQuantizeLSTM is behind the product with its inputs: `parts` [T, B, D * 4 * H] is that
product with all biases. The codes of `R` [D, H, 4 * H] are centred; `R_scale` is [D, 4 * H].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.linear import matmul_integer
from tuili.ops.op import Result, op
from tuili.ops.quantization import dynamic_quantize
from tuili.ops.recurrent import RECURRENT_ATTRS, lstm_cell, run_cells
from tuili.ops.site import Site
from tuili.tensors import Array


def _shape(site: Site) -> list[Result]:
    length, batch, width = site.need_rank(0, 3)
    directions, hidden, _ = site.need_rank(1, 3)
    site.same(width, directions * (4 * hidden), "the width of parts against R")
    state = (directions, batch, hidden)
    return [(length, directions, batch, hidden), state, state]


def _meaning(
    parts: Array,
    R: Array,
    R_scale: Array,
    lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    **attrs: Any,
) -> tuple[Array, ...]:
    hidden = R.shape[1]

    def recur(h: Array, direction: int) -> Array:
        codes, scale, zero = dynamic_quantize(h.astype(np.float32))
        total = matmul_integer(codes, R[direction], zero).astype(np.float32)
        return total * (scale * R_scale[direction])

    def part(x: Array, direction: int) -> Array:
        return x[..., direction * 4 * hidden : (direction + 1) * 4 * hidden]

    settled = {**attrs, "hidden_size": hidden, "layout": 0}
    cell = lstm_cell(recur, hidden, P, settled)
    return run_cells(parts, part, 4 * hidden, None, lens, [initial_h, initial_c], cell, settled)


ROWS = (
    op(
        "CodedLSTM",
        "parts:f32 R:R R_scale:f32 sequence_lens?:i32 initial_h?:f32 initial_c?:f32 P?:f32",
        "Y:f32 Y_h:f32 Y_c:f32",
        _shape,
        _meaning,
        allow={"R": "tiny"},
        attrs={**RECURRENT_ATTRS, "input_forget": 0},
    ),
)
