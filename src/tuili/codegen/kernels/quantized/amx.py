"""AMX: blocks of 32 rows by 32 columns, added up in tile registers 64 bytes of a row at a time.

    tl_tiles tiles = tl_tiles_begin();           on every thread, before anything else
    tl_tiles_rows(&tiles, rows);                 how many of the 32 rows exist from here on
    tl_block(&tiles, sums, starts, a, b, stride, w, &walk);
    tl_tiles_end(&tiles);

`sums` [2][2][16][16] are of rows 0-15 (at `a`, `stride` bytes apart) and 16-31 (at `b`) with
columns 0-15 and 16-31, and begin at `starts` [32]. `walk` says where the steps lie; weights lie as
[step][2][16][16 columns][4 bytes]. A process asks its kernel for the registers (Intel SDM, volume
1, chapter 18); where it does not get them, and without AMX, plain C gives the same sums.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.kernels.quantized.tile import in_panels
from tuili.tensors import Array, DType

ROWS: Final = 32  # of a block
COLUMNS: Final = 32
STEP_BYTES: Final = 64  # of a row
LANES: Final = 16

_TYPES = """
/* Loops around the steps, from the outside in: how often, and how far in bytes. */
typedef struct { int64_t count[3], step[3]; } tl_walk;
typedef struct { int fast; int64_t rows[2]; } tl_tiles;
"""

_FAST = """
#define TL_TILE_LOAD(tile, from, stride) __asm__ volatile( \\
    "tileloadd (%0,%1,1), %%tmm" #tile :: "r"(from), "r"((int64_t)(stride)) : "memory")
#define TL_TILE_STORE(tile, to) __asm__ volatile( \\
    "tilestored %%tmm" #tile ", (%0,%1,1)" :: "r"(to), "r"((int64_t)64) : "memory")
#define TL_TILE_ADD(sum, rows, columns) __asm__ volatile( \\
    "INSTRUCTION %%tmm" #columns ", %%tmm" #rows ", %%tmm" #sum :::)

/* Whether this process may use tile registers: arch_prctl(ARCH_REQ_XCOMP_PERM, 18), asked once. */
static int tl_may_use_tiles(void)
{
    static int answer; /* 1: yes, 2: no */
    int known = __atomic_load_n(&answer, __ATOMIC_RELAXED);
    if (!known) {
        int64_t refused;
        __asm__ volatile("syscall" : "=a"(refused) : "0"(158L), "D"(0x1023L), "S"(18L)
                         : "rcx", "r11", "memory");
        known = refused ? 2 : 1;
        __atomic_store_n(&answer, known, __ATOMIC_RELAXED);
    }
    return known == 1;
}
static void tl_tiles_rows(tl_tiles *tiles, int64_t rows)
{
    const int64_t low = rows < 16 ? rows : 16, high = rows > 16 ? rows - 16 : 1;
    if (tiles->rows[0] == low && tiles->rows[1] == high)
        return;
    tiles->rows[0] = low, tiles->rows[1] = high;
    if (!tiles->fast)
        return;
    struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {1};
    for (int tile = 0; tile < 8; tile++)
        shape.bytes[tile] = 64, shape.rows[tile] = 16;
    /* Sums 0 and 1 and rows 4 are of the first half, sums 2 and 3 and rows 5 of the other. */
    shape.rows[0] = shape.rows[1] = shape.rows[4] = (uint8_t)low;
    shape.rows[2] = shape.rows[3] = shape.rows[5] = (uint8_t)high;
    __asm__ volatile("ldtilecfg %0" :: "m"(shape));
}
static tl_tiles tl_tiles_begin(void)
{
    tl_tiles tiles = {tl_may_use_tiles(), {0, 0}};
    tl_tiles_rows(&tiles, 32);
    return tiles;
}
static void tl_tiles_end(const tl_tiles *tiles)
{
    if (tiles->fast)
        __asm__ volatile("tilerelease");
}
static void tl_block_fast(SUM *sums, const SUM *starts, const void *a, const void *b,
                          int64_t stride, const void *weights, const tl_walk *walk)
{
    const char *w = weights;
    TL_TILE_LOAD(0, starts, 0);
    TL_TILE_LOAD(1, starts + 16, 0);
    TL_TILE_LOAD(2, starts, 0);
    TL_TILE_LOAD(3, starts + 16, 0);
    for (int64_t i = 0; i < walk->count[0]; i++)
        for (int64_t j = 0; j < walk->count[1]; j++)
            for (int64_t k = 0; k < walk->count[2]; k++, w += 2048) {
                const int64_t at = i * walk->step[0] + j * walk->step[1] + k * walk->step[2];
                /* Weights of few rows come from memory: nothing runs ahead of tile loads. */
                for (int line = 0; line < 2048; line += 64)
                    __builtin_prefetch(w + 4096 + line);
                TL_TILE_LOAD(4, (const char *)a + at, stride);
                TL_TILE_LOAD(6, w, 64);
                TL_TILE_ADD(0, 4, 6);
                TL_TILE_LOAD(7, w + 1024, 64);
                TL_TILE_ADD(1, 4, 7);
                TL_TILE_LOAD(5, (const char *)b + at, stride);
                TL_TILE_ADD(2, 5, 6);
                TL_TILE_ADD(3, 5, 7);
            }
    TL_TILE_STORE(0, sums);
    TL_TILE_STORE(1, sums + 256);
    TL_TILE_STORE(2, sums + 512);
    TL_TILE_STORE(3, sums + 768);
}
"""

_NONE = """
static void tl_tiles_rows(tl_tiles *tiles, int64_t rows)
{
    tiles->rows[0] = rows < 16 ? rows : 16, tiles->rows[1] = rows > 16 ? rows - 16 : 1;
}
static tl_tiles tl_tiles_begin(void) { return (tl_tiles){0, {16, 16}}; }
static void tl_tiles_end(const tl_tiles *tiles) { (void)tiles; }
"""

_PLAIN = """
static void tl_block_plain(const tl_tiles *tiles, SUM *sums, const SUM *starts, const void *a,
                           const void *b, int64_t stride, const void *weights,
                           const tl_walk *walk)
{
    for (int64_t half = 0; half < 2; half++)
        for (int64_t row = 0; row < tiles->rows[half]; row++)
            for (int64_t column = 0; column < 32; column++) {
                const char *const x = (const char *)(half ? b : a) + row * stride;
                const WEIGHT *w = (const WEIGHT *)weights
                                  + (column / 16 * 256 + column % 16) * GROUP;
                SUM sum = starts[column];
                for (int64_t i = 0; i < walk->count[0]; i++)
                    for (int64_t j = 0; j < walk->count[1]; j++)
                        for (int64_t k = 0; k < walk->count[2]; k++, w += 512 * GROUP) {
                            const CODE *const p = (const void *)(x + i * walk->step[0]
                                + j * walk->step[1] + k * walk->step[2]);
                            for (int64_t n = 0; n < 16 * GROUP; n++)
                                sum = ADD(sum, p[n], w[n / GROUP * 16 * GROUP + n % GROUP]);
                        }
                sums[half * 512 + column / 16 * 256 + row * 16 + column % 16] = sum;
            }
}
static inline void tl_block(const tl_tiles *tiles, SUM *sums, const SUM *starts, const void *a,
                            const void *b, int64_t stride, const void *weights,
                            const tl_walk *walk)
{
#ifdef TL_TILE_LOAD
    if (tiles->fast) {
        tl_block_fast(sums, starts, a, b, stride, weights, walk);
        return;
    }
#endif
    tl_block_plain(tiles, sums, starts, a, b, stride, weights, walk);
}
"""

_HAS_IT: Final = "defined(__AMX_TILE__) && defined(__linux__) && !defined(TL_PORTABLE)"
_WHOLE = "(int32_t)((uint32_t)(sum) + (uint32_t)((int32_t)(x) * (int32_t)(w)))"
_HALVES = "((sum) + tl_from_half(x) * tl_from_half(w))"
_FROM_HALF = """
static inline float tl_from_half(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}
"""


def _text(instruction: str, add: str, words: dict[str, str]) -> str:
    fast = _FAST.replace("INSTRUCTION", instruction)
    text = f"{_TYPES}#if {_HAS_IT}{fast}#else{_NONE}#endif\n"
    text += f"#define ADD(sum, x, w) {add}{_PLAIN}"
    for word, value in words.items():
        text = re.sub(rf"\b{word}\b", value, text)
    return text


def _of_bytes(instruction: str, ctype: str) -> Dot:
    words = {"SUM": "int32_t", "CODE": ctype, "WEIGHT": "int8_t", "GROUP": "4"}
    text = _text(instruction, _WHOLE, words)
    return Dot(4, ctype, DType.I8, {DType.U8: 0, DType.I8: 0}, text)


AMX_BYTES: Final = {
    DType.U8: _of_bytes("tdpbusd", "uint8_t"),
    DType.I8: _of_bytes("tdpbssd", "int8_t"),
}
AMX_HALVES: Final = Dot(
    group=2,
    ctype="uint16_t",
    weights=DType.U16,
    shifts={},
    text=_FROM_HALF
    + _text(
        "tdpbf16ps",
        _HALVES,
        {"SUM": "float", "CODE": "uint16_t", "WEIGHT": "uint16_t", "GROUP": "2"},
    ),
    sum="vf",
)


def amx_panels(steps: Array) -> Array:
    """Weights [outputs, *loops, quads of a step, group] as panels of blocks, zero padded."""
    split = in_panels(steps, Tile(ROWS, COLUMNS // LANES), LANES)
    *outer, quads, columns, group = split.shape
    halves = split.reshape(*outer, quads, columns // LANES, LANES, group)
    return np.ascontiguousarray(np.moveaxis(halves, -4, -3)).reshape(len(split), -1)


def print_starts(ends: Ends) -> list[str]:
    """C that puts where the sums of panel `oc` begin into `starts`."""
    return [
        *(ends.start(f"start{v}", f"oc + {v} * V") for v in range(2)),
        *(f"memcpy(starts + {v} * V, &start{v}, sizeof start{v});" for v in range(2)),
    ]


def sums_of(steps: Array) -> Array:
    """The sum of all weights of each output, i32 [panels * columns]."""
    sums = np.zeros(-(-len(steps) // COLUMNS) * COLUMNS, np.int32)
    sums[: len(steps)] = steps.reshape(len(steps), -1).astype(np.int64).sum(1).astype(np.int32)
    return sums
