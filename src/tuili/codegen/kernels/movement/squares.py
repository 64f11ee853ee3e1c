"""Squares of elements, transposed in registers; the prelude has those of 4 bytes."""

from __future__ import annotations

from tuili.codegen.targets import Target

UNSIGNED = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}

_SHUFFLE = """
#ifndef TL_SHUFFLE
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define TL_SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#else
#define TL_SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
"""


def side(size: int, target: Target) -> int:
    """Rows and columns of a square of elements of `size` bytes.

    Bytes and halves take vectors of 16 bytes: wider ones interleave within these only.
    """
    return {1: 16, 2: 8, 4: target.lanes, 8: max(target.lanes // 2, 2)}[size]


def square(size: int, target: Target) -> str:
    """C of `tl_square_BITS(from, from_stride, to, to_stride)`: to[c][r] = from[r][c]."""
    bits, n, ctype = 8 * size, side(size, target), UNSIGNED[size]
    if size == 4:
        lines = ["    tl_transpose((const float *)from, from_stride, (float *)to, to_stride);"]
    else:
        kind = f"{ctype} __attribute__((vector_size({size * n})"
        lines = [
            f"    typedef {kind}));".replace(" __", " line __", 1),
            f"    typedef {kind}, aligned({size}), may_alias));".replace(" __", " line_any __", 1),
            f"    line r[{n}], s[{n}];",
            f"    for (int i = 0; i < {n}; i++)",
            "        r[i] = *(const line_any *)(from + i * from_stride);",
            *_interleaved(n),
            f"    for (int i = 0; i < {n}; i++)",
            f"        *(line_any *)(to + i * to_stride) = {'rs'[_stages(n) % 2]}[i];",
        ]
    return "\n".join(
        [
            _SHUFFLE.strip(),
            f"#ifndef TL_SQUARE_{bits}",
            f"#define TL_SQUARE_{bits}",
            f"static inline __attribute__((always_inline)) void tl_square_{bits}(",
            f"    const {ctype} *from, int64_t from_stride, {ctype} *to, int64_t to_stride)",
            "{",
            *lines,
            "}",
            "#endif",
        ]
    )


def _stages(n: int) -> int:
    return n.bit_length() - 1


def _interleaved(n: int) -> list[str]:
    """Rows i and i + n / 2 become rows 2 i and 2 i + 1, element by element; log n times over."""
    pairs = [(lane, n + lane) for lane in range(n)]
    low, high = (
        ", ".join(f"{a}, {b}" for a, b in half) for half in (pairs[: n // 2], pairs[n // 2 :])
    )
    lines: list[str] = []
    for stage in range(_stages(n)):
        old, new = "rs"[stage % 2], "rs"[1 - stage % 2]
        both = f"{old}[i], {old}[i + {n // 2}]"
        lines += [
            f"    for (int i = 0; i < {n // 2}; i++) {{",
            f"        {new}[2 * i] = TL_SHUFFLE(line, {both}, {low});",
            f"        {new}[2 * i + 1] = TL_SHUFFLE(line, {both}, {high});",
            "    }",
        ]
    return lines
