"""Tensors from little: ConstantOfShape, Range, EyeLike, OneHot, Trilu."""

from __future__ import annotations

import numpy as np

from tuili.codegen.element_types import is_native, literal, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.movement.strided import is_movable
from tuili.codegen.kernels.movement.strided_copy import UNSIGNED
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import ceil_div, numel

RUN = 4096


def supports(node: Node, ctx: Context) -> bool:
    """Whether C computes with the elements."""
    return is_native(node.output.dtype)


def supports_bytes(node: Node, ctx: Context) -> bool:
    """Any element that is moved as one word."""
    return is_movable(node.output) and node.output.dtype.itemsize in UNSIGNED


def _each(k: KernelBuilder, node: Node, lines: list[str]) -> None:
    """One statement list for every element i."""
    count = numel(node.output.shape)
    k.dim("COUNT", count)
    k.body(
        "\n".join(
            [
                f"const int64_t last = tl_min(end * {RUN}, COUNT);",
                f"for (int64_t i = begin * {RUN}; i < last; i++) {{",
                *(f"    {line}" for line in lines),
                "}",
            ]
        )
    )
    k.emit(grid=ceil_div(count, RUN), bytes=size_of(node.output.tensor))


def emit_constant_of_shape(node: Node, ctx: Context) -> None:
    """One value everywhere."""
    y = node.output
    value = np.asarray(attr(node, "value"))
    word = UNSIGNED[y.dtype.itemsize]
    bits = int(np.frombuffer(value.tobytes()[: y.dtype.itemsize], f"u{y.dtype.itemsize}")[0])
    k = KernelBuilder(ctx, node, f"fill_{8 * y.dtype.itemsize}")
    k.write("y", y, word)
    _each(k, node, [f"y[i] = ({word})UINT64_C({bits});"])


def emit_range(node: Node, ctx: Context) -> None:
    """start + i * delta."""
    y = node.output
    k = KernelBuilder(ctx, node, f"range_{y.dtype.value}")
    real = register_type(y.dtype)
    terms: list[str] = []
    for name, slot in (("start", 0), ("delta", 2)):
        value = node.required(slot)
        if value.constant is not None:
            terms.append(literal(value.constant.reshape(-1)[0], y.dtype))
        else:
            k.read(name, value)
            terms.append(loaded(y.dtype, f"{name}[0]"))
    k.write("y", y)
    _each(k, node, [f"y[i] = {stored(y.dtype, f'({real})({terms[0]} + ({real})i * {terms[1]})')};"])


def emit_eye_like(node: Node, ctx: Context) -> None:
    """Ones on a diagonal of zeros; a grid item is a row."""
    y = node.output
    k = KernelBuilder(ctx, node, f"eye_{y.dtype.value}")
    k.write("y", y)
    k.dims("COLUMNS", (y.shape[1],))
    one = stored(y.dtype, f"({register_type(y.dtype)})1")
    k.body(
        f"""
        for (int64_t item = begin; item < end; item++) {{
            const int64_t column = item + {int(attr(node, "k"))};
            memset(y + item * COLUMNS, 0, (size_t)COLUMNS * sizeof *y);
            if (column >= 0 && column < COLUMNS)
                y[item * COLUMNS + column] = {one};
        }}
        """
    )
    k.emit(grid=y.shape[0], bytes=size_of(y.tensor))


def supports_one_hot(node: Node, ctx: Context) -> bool:
    """Values that are moved as words, indices that C computes with."""
    return supports_bytes(node, ctx) and is_native(node.required(0).dtype)


def emit_one_hot(node: Node, ctx: Context) -> None:
    """The on-value where the index along the new axis is the given one."""
    indices, y = node.required(0), node.output
    rank = len(y.shape)
    axis = int(attr(node, "axis")) % rank
    word = UNSIGNED[y.dtype.itemsize]
    k = KernelBuilder(ctx, node, f"one_hot_{8 * y.dtype.itemsize}")
    k.read("indices", indices)
    k.read("values", node.required(2), word)
    k.write("y", y, word)
    k.dims("DEPTH INNER", (y.shape[axis], numel(y.shape[axis + 1 :])))
    index = loaded(indices.dtype, "indices[i / (DEPTH * INNER) * INNER + i % INNER]")
    lines = [
        f"int64_t hot = (int64_t){index};",
        "hot += hot < 0 ? DEPTH : 0;",
        "y[i] = values[i / INNER % DEPTH == hot];",
    ]
    _each(k, node, lines)


def emit_trilu(node: Node, ctx: Context) -> None:
    """A triangle kept, zeros elsewhere."""
    x, y = node.required(0), node.output
    word = UNSIGNED[y.dtype.itemsize]
    k = KernelBuilder(ctx, node, f"trilu_{8 * y.dtype.itemsize}")
    k.read("x", x, word)
    offset = node.input(1)
    shift = "0"
    if offset is not None and offset.constant is not None:
        shift = str(int(offset.constant.reshape(-1)[0]))
    elif offset is not None:
        k.read("k", offset)
        shift = "k[0]"
    k.write("y", y, word)
    k.dims("ROWS COLUMNS", y.shape[-2:])
    parts = ("0", "cut"), ("cut", "COLUMNS")
    gone, kept = parts if attr(node, "upper") else parts[::-1]
    first = "diagonal" if attr(node, "upper") else "diagonal + 1"
    words = {"SHIFT": shift, "FIRST": first, "GONE": gone, "KEPT": kept}
    k.body(_TRIANGLE.format(**words))
    k.emit(grid=numel(y.shape[:-1]), bytes=2 * size_of(y.tensor))


# A shift beyond all diagonals is one beyond: sums with it stay whole numbers of 64 bits.
_TRIANGLE = """
const int64_t shift = tl_max(-ROWS, tl_min({SHIFT}, COLUMNS));
for (int64_t row = begin; row < end; row++) {{
    const int64_t diagonal = row % ROWS + shift;
    const int64_t cut = tl_max(0, tl_min({FIRST}, COLUMNS));
    memset(y + row * COLUMNS + {GONE[0]}, 0, (size_t)({GONE[1]} - {GONE[0]}) * sizeof *y);
    memcpy(y + row * COLUMNS + {KEPT[0]}, x + row * COLUMNS + {KEPT[0]},
        (size_t)({KEPT[1]} - {KEPT[0]}) * sizeof *y);
}}
"""
