"""Elementwise: any body over broadcast operands, vectors where all is f32, else plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.bodies import Body, body_of
from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.expr import (
    is_of_truths,
    is_printable,
    is_vectorisable,
    print_body,
    printable_operators,
)
from tuili.codegen.expr_operators import HALVES, SHORTS
from tuili.codegen.half_vectors import half_vectors
from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.codegen.kernels.walk import Walk
from tuili.codegen.packing import block_channels
from tuili.codegen.strides import (
    Stride,
    Unless1,
    blocked_strides,
    broadcast_strides,
    collapse,
    physical_axes,
)
from tuili.ir import Node, TensorType, Value, block_of
from tuili.lower.program import View
from tuili.ops.table import attributes
from tuili.tensors import DType, Shape, numel

# Their vectors of parameters broadcast along an axis of their own.
PARAMETRIC = ("QuantizeLinear", "DequantizeLinear", "BatchNormalization")
OPERATORS = tuple(sorted({"Fused", *printable_operators()} - {*PARAMETRIC}))


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
    pairs = zip(body.operands, body.shapes, strict=True)
    return all(_strides(value, shape, node.output) is not None for value, shape in pairs)


def supports_parameters(node: Node, ctx: Context) -> bool:
    """Whether scales and zero points are numbers or vectors: no blocks, no training."""
    if attributes(node).get("training_mode") or attributes(node).get("block_size"):
        return False
    ranks = [len(value.shape) for value in node.inputs[1:] if value is not None]
    return all(rank <= 1 for rank in ranks) and supports(node, ctx)


def _full(shape: Shape, rank: int) -> Shape:
    """The shape with ones in front."""
    return (*(1,) * (rank - len(shape)), *shape)


def _packs(value: Value, shape: Shape, out: TensorType) -> bool:
    """Whether a constant is packed into the blocks of the output at compile time."""
    if value.constant is None or not out.layout or value.layout:
        return False
    assert out.shape is not None
    return _full(shape, len(out.shape))[1] != 1


def _strides(value: Value, shape: Shape, output: Value) -> tuple[Stride, ...] | None:
    out = output.tensor
    if not out.layout:
        return None if value.layout else broadcast_strides(shape, output.shape)
    if not _packs(value, shape, out):
        return blocked_strides(TensorType(value.dtype, shape, value.layout), out)
    full = _full(shape, len(output.shape))
    return blocked_strides(TensorType(value.dtype, full, out.layout), out)


def _operand(value: Value, shape: Shape, node: Node, ctx: Context) -> _Operand:
    strides = _strides(value, shape, node.output)
    assert strides is not None
    if not _packs(value, shape, node.output.tensor):
        return _Operand(value, value.dtype, strides)
    assert value.constant is not None
    full = [int(dim) for dim in _full(shape, len(node.output.shape)) if isinstance(dim, int)]
    packed = block_channels(value.constant.reshape(full), block_of(node.output.layout))
    return _Operand(View(ctx.add_weight(value.name, packed)), value.dtype, strides)


def emit(node: Node, ctx: Context) -> None:
    """Print the node's body over its operands."""
    body = body_of(node)
    if node.output.shape and 0 in node.output.shape:
        return
    pairs = zip(body.operands, body.shapes, strict=True)
    operands = [_operand(value, shape, node, ctx) for value, shape in pairs]
    axes = physical_axes(node.output.tensor)
    own = broadcast_strides(axes, axes)
    dims, rows = collapse(axes, [own, *(operand.strides for operand in operands)])
    k = KernelBuilder(ctx, node, _name(node, body))
    for index, operand in enumerate(operands):
        k.read(f"x{index}", operand.source)
    k.write("y", node.output)
    dtypes = [node.output.dtype, *(operand.dtype for operand in operands)]
    walk = Walk(k, dims, rows, [dtype.c for dtype in dtypes])
    grid = walk.declare()
    k.body(walk.loops(_inner(_Loop(walk, body, dtypes), ctx)))
    count = numel(physical_shape(node.output.tensor))
    traffic = sum((size_of(value.tensor) for value in body.operands), size_of(node.output.tensor))
    k.emit(grid=grid, flops=count * body.cost, bytes=traffic)


def _name(node: Node, body: Body) -> str:
    ops = list(dict.fromkeys(inner.op.lower() for inner in body.graph.nodes))
    shown = "_".join(ops[:4]) + ("_etc" if len(ops) > 4 else "")
    return shown if node.output.dtype is DType.F32 else f"{shown}_{node.output.dtype.value}"


# -- the innermost loop -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Loop:
    """What the innermost loop is printed from; operand 0 is the output."""

    walk: Walk
    body: Body
    dtypes: Sequence[DType]


def _inner(loop: _Loop, ctx: Context) -> str:
    steps = loop.walk.inner
    unit = steps[0] == 1 and all(not isinstance(step, Unless1) and step in (0, 1) for step in steps)
    fits = loop.dtypes[0] in _STORES and not is_of_truths(loop.body.graph)
    if unit and fits and is_vectorisable(loop.body.graph):
        if set(loop.dtypes) & {*HALVES, *SHORTS}:
            loop.walk.k.support(half_vectors(ctx.target))
        return _vector_loop(loop, ctx.target.lanes)
    return _scalar_loop(loop, "first")


def _vector_loop(loop: _Loop, lanes: int) -> str:
    dtypes, steps = loop.dtypes, loop.walk.inner
    moving = [index for index in range(1, len(steps)) if steps[index] == 1]
    still = [index for index in range(1, len(steps)) if steps[index] == 0]
    lines = [f"const {_vector_type(dtypes[i])} a{i - 1} = {_spread(dtypes[i], i)};" for i in still]
    loads = {i: _load(dtypes[i], f"x{i - 1}p + i") for i in moving}
    store = f"{_STORES[dtypes[0]]}({_WORDS.get(dtypes[0], '')}yp + i, {{}});"
    lines += ["int64_t i = first;", "for (; i + V <= last; i += V) {"]
    lines += [f"    {line}" for line in _step(loop, loads, store)] + ["}"]
    if isinstance(loop.walk.length, int) and loop.walk.length % lanes == 0:
        return "\n".join(lines)
    if any(dtypes[i] is not DType.F32 for i in (0, *moving)):
        return "\n".join([*lines, _scalar_loop(loop, "i")])
    tails = {i: f"v_loadn(x{i - 1}p + i, last - i)" for i in moving}
    lines.append("if (i < last) {")
    lines += [f"    {line}" for line in _step(loop, tails, "v_storen(yp + i, {}, last - i);")]
    return "\n".join([*lines, "}"])


def _vector_type(dtype: DType) -> str:
    return "vi" if dtype is DType.BOOL else "vf"


def _spread(dtype: DType, index: int) -> str:
    place = f"x{index - 1}p[0]"
    return (
        f"v_iset1(-(int32_t){place})" if dtype is DType.BOOL else f"v_set1({loaded(dtype, place)})"
    )


def _load(dtype: DType, place: str) -> str:
    return f"{_LOADS[dtype]}({_WORDS.get(dtype, '')}{place})"


_LOADS = {
    DType.F32: "v_load",
    DType.BOOL: "v_load_mask",
    DType.U8: "v_load_u8",
    DType.I8: "v_load_i8",
    DType.U16: "v_load_u16",
    DType.I16: "v_load_i16",
    DType.F16: "v_load_f16",
    DType.BF16: "v_load_bf16",
}
_WORDS = {DType.F16: "(uint16_t *)"}  # what the vector functions take pointers to
_STORES = {dtype: name.replace("load", "store") for dtype, name in _LOADS.items()}


def _step(loop: _Loop, loads: dict[int, str], store: str) -> list[str]:
    lines = [
        f"const {_vector_type(loop.dtypes[i])} a{i - 1} = {text};" for i, text in loads.items()
    ]
    body = loop.body
    args = [f"a{slot}" for slot in body.slots]
    statements, result = print_body(body.graph, args, vector=True, known=body.known)
    return [*lines, *statements, store.format(result)]


def _scalar_loop(loop: _Loop, start: str) -> str:
    walk, body = loop.walk, loop.body
    places = walk.places("j")
    lines = [
        f"const {register_type(dtype)} a{index} = {loaded(dtype, places[index + 1])};"
        for index, dtype in enumerate(loop.dtypes[1:])
    ]
    args = [f"a{slot}" for slot in body.slots]
    statements, result = print_body(body.graph, args, vector=False, known=body.known)
    lines += [*statements, f"{places[0]} = {stored(loop.dtypes[0], result)};"]
    inner = "\n".join(f"    {line}" for line in lines)
    return f"for (int64_t j = {start}; j < last; j++) {{\n{inner}\n}}"
