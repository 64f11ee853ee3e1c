"""GatherBlockQuantized: rows of a table of codes, made numbers on their way.

Codes stay where the model has them: bytes of the codes of neighbours, the low bits first. Tables
of 4-bit types, which hold a byte for each, are packed that way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.matmul import is_plain_f32
from tuili.codegen.kernels.movement.gather import wrap_index
from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div, numel

_NIBBLES = (DType.U4, DType.I4)


@dataclass(frozen=True, slots=True)
class _Table:
    """Where rows are found, and how codes lie in a line of the last axis."""

    shape: tuple[Dim, ...]  # of codes
    axis: int
    bits: int
    block: int
    blocks: int  # in a line
    middle: int  # the code of zero, where nothing else is said

    @property
    def each(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits


def _table(node: Node) -> _Table | None:
    """The table of a node that a kernel can read: rows that lie together, blocks within lines."""
    data, scales, zeros = node.required(0), node.required(2), node.input(3)
    last = len(data.shape) - 1
    axis = int(attr(node, "gather_axis")) % len(data.shape)
    bits = 4 if data.dtype in _NIBBLES else int(attr(node, "bits"))
    width = data.shape[-1]
    if axis == last or int(attr(node, "quantize_axis")) % len(data.shape) != last:
        return None
    if bits not in (1, 2, 4, 8) or not isinstance(width, int) or width == 0:
        return None
    if data.dtype is DType.U8:
        width *= 8 // bits
    elif data.dtype not in _NIBBLES or not data.is_constant or width % 2:
        return None
    block = int(attr(node, "block_size")) or width
    middle = 0 if data.dtype is DType.U4 else 2 ** (bits - 1)
    table = _Table((*data.shape[:-1], width), axis, bits, block, -(-width // block), middle)
    lines = data.shape[:-1]
    fits = scales.shape == (*lines, table.blocks) and block % table.each == 0
    return table if fits and _zeros_fit(zeros, data, table) else None


def _zeros_fit(zeros: Value | None, data: Value, table: _Table) -> bool:
    if zeros is None:
        return True
    if zeros.dtype is not data.dtype or (data.dtype in _NIBBLES and not zeros.is_constant):
        return False
    count = -(-table.blocks // table.each) if data.dtype is DType.U8 else table.blocks
    return zeros.shape == (*data.shape[:-1], count)


def supports(node: Node, ctx: Context) -> bool:
    """Blocks along the last axis, rows along another; numbers of f32."""
    values = [value for value in node.inputs if value is not None]
    plain = all(not value.layout for value in values)
    numbers = is_plain_f32(node.required(2)) and is_plain_f32(node.output)
    return plain and numbers and _table(node) is not None


def emit(node: Node, ctx: Context) -> None:
    """A grid item is one index."""
    table, indices, y = _table(node), node.required(1), node.output
    assert table is not None  # supports
    if 0 in y.shape:
        return
    has_zeros = node.input(3) is not None
    count, lines = numel(indices.shape), numel(table.shape[table.axis + 1 : -1])
    k = KernelBuilder(ctx, node, f"gather_codes_{table.bits}")
    _read_codes(k, "x", node.required(0))
    k.read("indices", indices)
    k.read("scales", node.required(2))
    if has_zeros:
        _read_codes(k, "zeros", node.required(3))
    k.write("y", y)
    k.dims("SIZE COUNT LINES", (table.shape[table.axis], count, lines))
    k.dims("WIDTH BLOCK BLOCKS", (table.shape[-1], table.block, table.blocks))
    k.body("\n".join(_body(k, table, has_zeros=has_zeros)))
    k.emit(grid=numel(table.shape[: table.axis]) * count, bytes=numel(y.shape) * 5)


def _read_codes(k: KernelBuilder, name: str, value: Value) -> None:
    if value.dtype is DType.U8:
        k.read(name, value)
    else:
        assert value.constant is not None  # _table
        k.weight(name, _packed(value.constant, signed=value.dtype is DType.I4))


def _packed(codes: Array, *, signed: bool) -> Array:
    """4-bit numbers [..., n] in bytes [..., ceil(n / 2)]; -8 becomes 0."""
    nibbles = codes.astype(np.int8) + 8 if signed else codes.astype(np.uint8)
    padded = np.pad(
        nibbles.view(np.uint8), [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)]
    )
    return padded[..., ::2] | padded[..., 1::2] << np.uint8(4)


def _body(k: KernelBuilder, table: _Table, *, has_zeros: bool) -> list[str]:
    bits, each, zero = table.bits, table.each, f"{table.middle}.0f"
    pointers = [
        f"const uint8_t *const c = x + (row + line) * {ceil_div(table.shape[-1], each)};",
        "const float *const s = scales + (row + line) * BLOCKS;",
        "float *const to = y + (item * LINES + line) * WIDTH;",
    ]
    if has_zeros:
        step = -(-table.blocks // each)
        pointers.append(f"const uint8_t *const z = zeros + (row + line) * {step};")
        zero = f"(float)(z[b / {each}] >> b % {each} * {bits} & {2**bits - 1})"
    numbers = [
        f"to[i + {place}] = ((float)(codes >> {place * bits} & {2**bits - 1}) - zero) * s[b];"
        for place in range(each)
    ]
    return [
        "for (int64_t item = begin; item < end; item++) {",
        *(f"    {line}" for line in wrap_index(k, "at", "indices[item % COUNT]", "SIZE")),
        "    const int64_t row = (item / COUNT * SIZE + at) * LINES;",
        "    for (int64_t line = 0; line < LINES; line++) {",
        *(f"        {line}" for line in pointers),
        "        for (int64_t b = 0; b < BLOCKS; b++) {",
        f"            const float zero = {zero};",
        "            const int64_t stop = tl_min((b + 1) * BLOCK, WIDTH);",
        f"            for (int64_t i = b * BLOCK; i < stop; i += {each}) {{",
        f"                const uint32_t codes = c[i / {each}];",
        *(f"                {line}" for line in numbers),
        "            }",
        "        }",
        "    }",
        "}",
    ]
