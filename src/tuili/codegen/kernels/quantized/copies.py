"""Copies of a convolution's input to padded cells, as C: one form for each way that it lies.

Blocks that are cells keep their order; several blocks become a cell, whole or cut at the last
channel; rows of single channels are put side by side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuili.ir import Value, block_of
from tuili.tensors import DType


@dataclass(frozen=True, slots=True)
class Stored:
    """How numbers are stored: C that makes one of a number `{x}`, and what padding holds."""

    dtype: DType
    convert: str
    fill: str
    vector: str = ""  # C that stores V numbers from `{at}` on to `{to}`, where it is one of vectors
    shift: int | None = None  # bytes are stored with this added

    def print(self, template: str) -> str:
        """The template with C for each `@{number}`, and for the type OUT."""
        found = re.sub(r"@BLOCK\{([^}]*), ([^}]*)\}", self._block, template)
        found = re.sub(r"@\{([^}]*)\}", lambda word: self.convert.format(x=word[1]), found)
        return found.replace("OUT", self.dtype.c)

    def _block(self, word: re.Match[str]) -> str:
        to, at = word[1], word[2]
        if self.vector:
            return self.vector.format(to=to, at=at)
        return f"for (int64_t i = 0; i < BLOCK; i++) ({to})[i] = @{{({at})[i]}};"


def is_cut(x: Value, channels: int, cell: int) -> bool:
    """Whether a cell holds all channels, and fewer than their blocks have places."""
    block = block_of(x.layout)
    return block > 1 and cell == channels and cell % block > 0


def copy_text(x: Value, channels: int, cell: int, stored: Stored, *, is_joined: bool) -> str:
    """C of the copy to cells of so many places, of one block or, `is_joined`, of several."""
    cut, block = is_cut(x, channels, cell), block_of(x.layout)
    form = _CUT if cut else _JOINED if is_joined else _BLOCKED if x.layout else _PLAIN
    if form is _PLAIN and stored.shift is not None and channels <= cell and cell in (3, 4):
        form = _PIXELS.replace("@STORE", _STORE_3 if cell == 3 else _STORE_4)
    words = {"FILL": stored.fill, "CELL": str(cell), "BLOCK": str(block), "IN": x.dtype.c}
    words["SHIFT"] = str(stored.shift or 0)
    words["REST"] = _rest(x, channels, cell, is_joined=is_joined)
    text = stored.print(_HEAD + form)
    return re.sub("|".join(words), lambda word: words[word[0]], text)


def _rest(x: Value, channels: int, cell: int, *, is_joined: bool) -> str:
    """C: zeros for channels of the last block that there are not; floats there may be infinite."""
    block = block_of(x.layout)
    if channels % block == 0 or not x.dtype.is_float:
        return ""
    low, high = ("low", "high") if is_joined else ("left", "right")
    is_last = "b == B - 1" if is_joined else "plane % CB == CB - 1"
    return (
        f"for (int64_t w = {low}; {is_last} && w < {high}; w++) "
        f"for (int64_t i = {channels % block}; i < {block}; i++) to[w * {cell} + i] = fill;"
    )


_HEAD = """
const OUT fill = (OUT)(FILL);
if (SLACK > 0 && begin < end && end == ITEMS)
    memset(y + ITEMS * WP * CELL, 0, SLACK);
"""

_BLOCKED = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP - PT, plane = item / HP;
    OUT *const to = y + item * WP * CELL;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, W + PL));
    for (int64_t i = 0; i < left * CELL; i++)
        to[i] = fill;
    if (left < right) {
        const IN *const from = x + ((plane * H + h) * W + left - PL) * CELL;
        for (int64_t i = 0; i < (right - left) * CELL; i++)
            to[left * CELL + i] = @{from[i]};
        REST
    }
    for (int64_t i = right * CELL; i < WP * CELL; i++)
        to[i] = fill;
}
(void)C, (void)CB;
"""

# Of several blocks side by side; weights of channels that do not exist are zero.
_JOINED = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP * SH - PT, plane = item / HP, n = plane / CB;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, (W - 1) / SW + 1 + PL));
    for (int64_t part = 0; part < CELL / BLOCK; part++) {
        const int64_t b = plane % CB * (CELL / BLOCK) + part;
        const int64_t low = b < B ? left : WP, high = b < B ? right : WP;
        OUT *const to = y + item * WP * CELL + part * BLOCK;
        for (int64_t w = 0; w < low; w++)
            for (int64_t i = 0; i < BLOCK; i++)
                to[w * CELL + i] = fill;
        if (low < high) {
            const IN *const from = x + (((n * B + b) * H + h) * W + low - PL) * BLOCK;
            for (int64_t w = 0; w < high - low; w++)
                @BLOCK{to + (low + w) * CELL, from + w * SW * BLOCK}
            REST
        }
        for (int64_t w = high; w < WP; w++)
            for (int64_t i = 0; i < BLOCK; i++)
                to[w * CELL + i] = fill;
    }
}
(void)C;
"""

# All channels of a pixel side by side, those of the last block as many as there are.
_CUT = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP * SH - PT, n = item / HP;
    OUT *const to = y + item * WP * CELL;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, (W - 1) / SW + 1 + PL));
    for (int64_t i = 0; i < left * CELL; i++)
        to[i] = fill;
    for (int64_t b = 0; left < right && b < B; b++) {
        const IN *const from = x + (((n * B + b) * H + h) * W + left - PL) * BLOCK;
        OUT *const part = to + left * CELL + b * BLOCK;
        if ((b + 1) * BLOCK <= CELL)
            for (int64_t w = 0; w < right - left; w++)
                @BLOCK{part + w * CELL, from + w * SW * BLOCK}
        else
            for (int64_t w = 0; w < right - left; w++)
                for (int64_t i = 0; i < CELL % BLOCK; i++)
                    part[w * CELL + i] = @{from[w * SW * BLOCK + i]};
    }
    for (int64_t i = right * CELL; i < WP * CELL; i++)
        to[i] = fill;
}
(void)C, (void)CB;
"""

_PLAIN = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP - PT, plane = item / HP, first = plane % CB * CELL;
    const IN *const from = x + (plane / CB * C + first) * H * W + h * W - PL;
    OUT *const to = y + item * WP * CELL;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, W + PL));
    for (int64_t c = 0; c < CELL; c++) {
        const int64_t low = first + c < C ? left : WP, high = first + c < C ? right : WP;
        for (int64_t w = 0; w < low; w++)
            to[w * CELL + c] = fill;
        for (int64_t w = low; w < high; w++)
            to[w * CELL + c] = @{from[c * H * W + w]};
        for (int64_t w = high; w < WP; w++)
            to[w * CELL + c] = fill;
    }
}
"""

# The same of bytes, V pixels at once. Three channels are stored as four, of which the next pixel's
# first takes the last one back.
_PIXELS = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP - PT;
    const uint8_t *const from = (const uint8_t *)x + item / HP * C * H * W + h * W - PL;
    OUT *const to = y + item * WP * CELL;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, W + PL));
    for (int64_t i = 0; i < left * CELL; i++)
        to[i] = fill;
    int64_t w = left;
    for (; w + V < right; w += V) {
        vi pixels = {0};
        for (int32_t c = 0; c < CELL; c++)
            pixels |= c < C ? ((v_load_bytes(from + c * H * W + w) + SHIFT) & 255) << 8 * c
                            : v_iset1((int32_t)((uint32_t)(uint8_t)fill << 8 * c));
        @STORE
    }
    for (; w < right; w++)
        for (int64_t c = 0; c < CELL; c++)
            to[w * CELL + c] = c < C ? (OUT)(from[c * H * W + w] + SHIFT) : fill;
    for (int64_t i = right * CELL; i < WP * CELL; i++)
        to[i] = fill;
}
(void)CB;
"""
_STORE_4 = "memcpy(to + w * 4, &pixels, sizeof pixels);"
_STORE_3 = """int32_t each[V];
        memcpy(each, &pixels, sizeof pixels);
        for (int64_t l = 0; l < V; l++)
            memcpy(to + (w + l) * 3, &each[l], 4);"""
