"""How a convolution of codes is run: by AMX, by Winograd in whole numbers or directly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.conv.plan import whole_panels
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.shape import ConvShape, conv_problem, conv_shape
from tuili.codegen.kernels.quantized.amx import AMX_BYTES
from tuili.codegen.kernels.quantized.amx_cells import cut_window
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.sums import known_zero
from tuili.codegen.kernels.quantized.tile import rank_q_tiles
from tuili.codegen.kernels.quantized.winograd_plan import (
    QWinogradPlan,
    WholeFilters,
    plan_whole,
    rank_whole,
)
from tuili.codegen.kernels.quantized.winograd_transforms import ANY_CODES, CodeRange
from tuili.codegen.targets import Target
from tuili.ir import Node, block_of
from tuili.ops.table import attr
from tuili.tensors import numel

LEAST_PIXELS, LEAST_OUTPUTS = 8, 16  # fewer leave the multipliers of AMX without work
VECTOR_CYCLES = 32  # of two multipliers for a group of a block, 32 pixels by 2 vectors
QUAD = 4  # codes that are multiplied in a step, where the instruction set is good at it
MOST_PLAIN = 16  # channels of a row-major input


@dataclass(frozen=True, slots=True)
class AmxPlan:
    """Blocks of 32 pixels by 32 outputs in tile registers."""


QConvPlan: TypeAlias = "Tile | QWinogradPlan | AmxPlan"  # a tile: direct


def fits_amx(node: Node, ctx: Context, dot: Dot) -> bool:
    """Whether a dense convolution gives tile registers less to do than vectors would have."""
    x, weights = node.required(0), node.required(1).shape
    if not ctx.target.amx or attr(node, "group") != 1:
        return False
    outputs, channels, *taps = (dim for dim in weights if isinstance(dim, int))
    pixels = numel(node.output.shape[2:])
    enough = not isinstance(pixels, int) or pixels >= LEAST_PIXELS
    if not enough or outputs < LEAST_OUTPUTS or not (x.layout or channels <= MOST_PLAIN):
        return False
    window = cut_window(conv_shape(node, taps), dot, block_of(x.layout))
    groups = -(-channels // dot.group) * window.shape.taps
    return window.cycles < groups * VECTOR_CYCLES


def plan_qconv(node: Node, ctx: Context) -> QConvPlan:
    """The plan of a QConv of known weights whose output is blocked."""
    weights = node.required(1).constant
    assert weights is not None
    shape, groups = conv_shape(node, weights.shape[2:]), attr(node, "group")
    ways: list[WholeFilters | None] = [None]
    if _may_transform(node):
        ways = rank_whole(shape, ctx.target, weights, _range_of(node))
    plans: dict[str, QConvPlan] = {}
    if weights.dtype == np.int8 and fits_amx(node, ctx, AMX_BYTES[node.required(0).dtype]):
        plans["amx"] = AmxPlan()
    plans |= dict(plan for way in ways for plan in _plans(way, shape, groups, ctx.target))
    problem = conv_problem("QConv", shape.flat(), groups, block_of(node.required(0).layout))
    return ctx.choose(node, problem, plans)


def _range_of(node: Node) -> CodeRange:
    """How far codes may be from their zero point."""
    zero, limits = known_zero(node), np.iinfo(node.required(0).dtype.numpy)
    return ANY_CODES if zero is None else (int(limits.min) - zero, int(limits.max) - zero)


def _may_transform(node: Node) -> bool:
    """Whether it is 3x3 with stride 1, of one group."""
    x = node.required(0)
    if attr(node, "group") != 1:
        return False
    steps = (attr(node, "strides") or (1, 1), attr(node, "dilations") or (1, 1))
    plain = all(tuple(step) == (1, 1) for step in steps)
    return plain and bool(x.layout) and len(x.shape) == 4 and node.required(1).shape[2:] == (3, 3)


def _plans(
    way: WholeFilters | None, shape: ConvShape, groups: int, target: Target
) -> Iterator[tuple[str, QConvPlan]]:
    if way is not None:
        plan = plan_whole(shape, target, *way)
        yield f"winograd F({plan.winograd.outputs},3)", plan
        return
    flat = shape.flat()
    vectors = whole_panels(flat, groups, target) or -(-flat.outputs // target.lanes)
    # Tiles have one vector or two: panels of two cross groups of an odd number.
    blocks = 1 if groups > 1 and vectors % 2 else vectors
    steps = -(-flat.channels // (groups * QUAD)) * flat.taps
    for tile in rank_q_tiles(target, flat.columns.out, blocks, steps):
        yield f"direct {tile}", tile
