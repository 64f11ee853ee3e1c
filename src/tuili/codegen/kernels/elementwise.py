"""Elementwise: any body over broadcast operands, vectors where all is f32, else plain loops.

The axes of the output are collapsed to as few as the operands allow. A grid item is a run of the
innermost axis, or a run of rows when the innermost axis is short:

    item -> (outer axes, run of rows) -> rows -> innermost axis
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.bodies import Body, body_of
from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.expr import is_printable, is_vectorisable, print_body, printable_operators
from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.codegen.packing import block_channels
from tuili.codegen.strides import (
    Stride,
    Unless1,
    blocked_strides,
    broadcast_strides,
    collapse,
    declare_stride,
    physical_axes,
)
from tuili.ir import Node, TensorType, Value, block_of
from tuili.lower.program import View
from tuili.tensors import Dim, DType, ceil_div, dim_max, floor_div, numel

OPERATORS = ("Fused", *printable_operators())
RUN = 4096  # elements per grid item, about
SHORT = 1024  # from this length on an innermost axis is cut by itself


@dataclass(frozen=True, slots=True)
class _Operand:
    """An operand: where it is read and its strides over the output's physical axes."""

    source: Value | View
    dtype: DType
    strides: tuple[Stride, ...]


def supports(node: Node, ctx: Context) -> bool:
    """Whether C computes with the types and every operand can be walked in the output's order."""
    body = body_of(node)
    if not is_printable(body.graph) or not is_native(node.output.dtype):
        return False
    if node.output.layout and not is_vectorisable(body.graph):
        return False
    return all(_strides(value, node.output) is not None for value in body.operands)


def _packs(value: Value, out: TensorType) -> bool:
    """Whether a constant is packed into the blocks of the output at compile time."""
    constant, shape = value.constant, out.shape
    if constant is None or not out.layout or value.layout:
        return False
    assert shape is not None
    full = (1,) * (len(shape) - constant.ndim) + constant.shape
    return full[1] != 1


def _strides(value: Value, output: Value) -> tuple[Stride, ...] | None:
    out = output.tensor
    if not out.layout:
        return None if value.layout else broadcast_strides(value.shape, output.shape)
    if not _packs(value, out):
        return blocked_strides(value.tensor, out)
    rank = len(output.shape)
    shape = (1,) * (rank - len(value.shape)) + tuple(value.shape)
    return blocked_strides(TensorType(value.dtype, shape, out.layout), out)


def _operand(value: Value, node: Node, ctx: Context) -> _Operand:
    strides = _strides(value, node.output)
    assert strides is not None
    if not _packs(value, node.output.tensor):
        return _Operand(value, value.dtype, strides)
    assert value.constant is not None
    shape = (1,) * (len(node.output.shape) - value.constant.ndim) + value.constant.shape
    packed = block_channels(value.constant.reshape(shape), block_of(node.output.layout))
    return _Operand(View(ctx.add_weight(value.name, packed)), value.dtype, strides)


def emit(node: Node, ctx: Context) -> None:
    """Print the node's body over its operands."""
    body = body_of(node)
    if node.output.shape and 0 in node.output.shape:
        return
    operands = [_operand(value, node, ctx) for value in body.operands]
    axes = physical_axes(node.output.tensor)
    own = broadcast_strides(axes, axes)
    dims, rows = collapse(axes, [own, *(operand.strides for operand in operands)])
    k = KernelBuilder(ctx, node, _name(node, body))
    for index, operand in enumerate(operands):
        k.read(f"x{index}", operand.source)
    k.write("y", node.output)
    walk = _Walk(k, dims, rows, [operand.dtype for operand in operands], node.output.dtype)
    grid = walk.declare()
    inner = _inner(walk, body, ctx)
    k.body(walk.loops(inner))
    count = numel(physical_shape(node.output.tensor))
    traffic = sum((size_of(value.tensor) for value in body.operands), size_of(node.output.tensor))
    k.emit(grid=grid, flops=count * body.cost, bytes=traffic)


def _name(node: Node, body: Body) -> str:
    ops = list(dict.fromkeys(inner.op.lower() for inner in body.graph.nodes))
    shown = "_".join(ops[:4]) + ("_etc" if len(ops) > 4 else "")
    return shown if node.output.dtype is DType.F32 else f"{shown}_{node.output.dtype.value}"


class _Walk:
    """The loops of one kernel; operand 0 is the output."""

    def __init__(
        self,
        k: KernelBuilder,
        dims: Sequence[Dim],
        strides: Sequence[Sequence[Stride]],
        dtypes: Sequence[DType],
        out: DType,
    ) -> None:
        self.k = k
        self.dtypes = [out, *dtypes]
        self.length = dims[-1]
        self.by_rows = len(dims) > 1 and not (isinstance(dims[-1], int) and dims[-1] >= SHORT)
        self.outer = list(dims[: -2 if self.by_rows else -1])
        self.run_axis = dims[-2] if self.by_rows else dims[-1]
        self.strides = strides
        self.pointers = ["y", *(f"x{index}" for index in range(len(dtypes)))]

    @property
    def inner(self) -> list[Stride]:
        """The strides along the innermost axis, the output's first."""
        return [row[-1] for row in self.strides]

    def declare(self) -> Dim:
        """Declare dims; returns the grid."""
        k = self.k
        for index, dim in enumerate(self.outer):
            k.dim(f"D{index}", dim)
        run: Dim = RUN
        if self.by_rows:
            run = dim_max(1, floor_div(RUN, dim_max(self.length, 1)))
            k.dim("ROWS", self.run_axis)
        runs = ceil_div(self.run_axis, run)
        k.dims("LENGTH RUN RUNS", (self.length, run, runs))
        return numel(self.outer) * runs

    def loops(self, inner: str) -> str:
        """All loops around the text of the innermost one, which walks i in [first, last)."""
        lines = ["for (int64_t item = begin; item < end; item++) {"]
        lines += [f"    {line}" for line in self._item()]
        if self.by_rows:
            lines += [
                "    const int64_t last_row = tl_min((run + 1) * RUN, ROWS);",
                "    for (int64_t row = run * RUN; row < last_row; row++) {",
                *(f"        {line}" for line in self._row_pointers()),
                "        const int64_t first = 0, last = LENGTH;",
                textwrap.indent(inner, "        "),
                "    }",
            ]
        else:
            lines += [
                *(
                    f"    {self._pointer(index, f'{name}_at')}"
                    for index, name in enumerate(self.pointers)
                ),
                "    const int64_t first = run * RUN, last = tl_min(first + RUN, LENGTH);",
                textwrap.indent(inner, "    "),
            ]
        return "\n".join([*lines, "}"])

    def _item(self) -> list[str]:
        lines = (
            ["const int64_t run = item % RUNS;"] if self.outer else ["const int64_t run = item;"]
        )
        if self.outer:
            lines.append("int64_t rest = item / RUNS;")
        terms: list[list[str]] = [[] for _ in self.pointers]
        for axis in reversed(range(len(self.outer))):
            index = f"i{axis}"
            if axis:
                lines.append(f"const int64_t {index} = rest % D{axis};")
                lines.append(f"rest /= D{axis};")
            else:
                lines.append(f"const int64_t {index} = rest;")
            for operand, row in enumerate(self.strides):
                step = self._stride(operand, row[axis], axis)
                if step != "0":
                    terms[operand].append(index if step == "1" else f"{index} * {step}")
        for name, offsets in zip(self.pointers, terms, strict=True):
            lines.append(f"const int64_t {name}_at = {' + '.join(offsets) or '0'};")
        return lines

    def _stride(self, operand: int, stride: Stride, axis: int) -> str:
        return declare_stride(self.k, f"{self.pointers[operand].upper()}_S{axis}", stride)

    def _row_pointers(self) -> list[str]:
        lines: list[str] = []
        for index, name in enumerate(self.pointers):
            step = self._stride(index, self.strides[index][-2], len(self.outer))
            offset = "" if step == "0" else " + row" if step == "1" else f" + row * {step}"
            lines.append(self._pointer(index, f"{name}_at{offset}"))
        return lines

    def _pointer(self, index: int, offset: str) -> str:
        const = "const " if index else ""
        name, ctype = self.pointers[index], self.dtypes[index].c
        return f"{const}{ctype} *const {name}p = {name} + {offset};"


# -- the innermost loop -------------------------------------------------------------------------


def _inner(walk: _Walk, body: Body, ctx: Context) -> str:
    steps = walk.inner
    unit = steps[0] == 1 and all(not isinstance(step, Unless1) and step in (0, 1) for step in steps)
    fits = walk.dtypes[0] in (DType.F32, DType.BOOL)
    if unit and fits and is_vectorisable(body.graph):
        return _vector_loop(walk, body, ctx.target.lanes)
    return _scalar_loop(walk, body, "first")


def _vector_loop(walk: _Walk, body: Body, lanes: int) -> str:
    dtypes, steps = walk.dtypes, walk.inner
    moving = [index for index in range(1, len(steps)) if steps[index] == 1]
    still = [index for index in range(1, len(steps)) if steps[index] == 0]
    lines = [f"const {_vector_type(dtypes[i])} a{i - 1} = {_spread(dtypes[i], i)};" for i in still]
    loads = {i: _load(dtypes[i], f"x{i - 1}p + i") for i in moving}
    store = "v_store(yp + i, {});" if dtypes[0] is DType.F32 else "v_store_mask(yp + i, {});"
    lines += ["int64_t i = first;", "for (; i + V <= last; i += V) {"]
    lines += [f"    {line}" for line in _step(walk, body, loads, store)] + ["}"]
    if isinstance(walk.length, int) and walk.length % lanes == 0:
        return "\n".join(lines)
    if any(dtypes[i] is DType.BOOL for i in (0, *moving)):
        return "\n".join([*lines, _scalar_loop(walk, body, "i")])
    tails = {i: f"v_loadn(x{i - 1}p + i, last - i)" for i in moving}
    lines.append("if (i < last) {")
    lines += [f"    {line}" for line in _step(walk, body, tails, "v_storen(yp + i, {}, last - i);")]
    return "\n".join([*lines, "}"])


def _vector_type(dtype: DType) -> str:
    return "vi" if dtype is DType.BOOL else "vf"


def _spread(dtype: DType, index: int) -> str:
    place = f"x{index - 1}p[0]"
    return f"v_iset1(-(int32_t){place})" if dtype is DType.BOOL else f"v_set1({place})"


def _load(dtype: DType, place: str) -> str:
    return f"v_load_mask({place})" if dtype is DType.BOOL else f"v_load({place})"


def _step(walk: _Walk, body: Body, loads: dict[int, str], store: str) -> list[str]:
    lines = [
        f"const {_vector_type(walk.dtypes[i])} a{i - 1} = {text};" for i, text in loads.items()
    ]
    args = [f"a{slot}" for slot in body.slots]
    statements, result = print_body(body.graph, args, vector=True, known=body.known)
    return [*lines, *statements, store.format(result)]


def _scalar_loop(walk: _Walk, body: Body, start: str) -> str:
    lines: list[str] = []
    places: list[str] = []
    for index, stride in enumerate(walk.inner):
        step = declare_stride(walk.k, f"{walk.pointers[index].upper()}_S", stride)
        at = "0" if step == "0" else "j" if step == "1" else f"j * {step}"
        places.append(f"{walk.pointers[index]}p[{at}]")
    for index, dtype in enumerate(walk.dtypes[1:]):
        value = loaded(dtype, places[index + 1])
        lines.append(f"const {register_type(dtype)} a{index} = {value};")
    args = [f"a{slot}" for slot in body.slots]
    statements, result = print_body(body.graph, args, vector=False, known=body.known)
    lines += [*statements, f"{places[0]} = {stored(walk.dtypes[0], result)};"]
    inner = "\n".join(f"    {line}" for line in lines)
    return f"for (int64_t j = {start}; j < last; j++) {{\n{inner}\n}}"
