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
from tuili.codegen.kernels.quantized.tile import rank_q_tiles
from tuili.codegen.kernels.quantized.winograd_plan import (
    QWinogradPlan,
    WholeFilters,
    plan_whole,
    rank_whole,
)
from tuili.codegen.targets import Target
from tuili.ir import Node, block_of
from tuili.ops.table import attr
from tuili.tensors import numel

LEAST_PER_CELL = 16  # channels: fewer leave the multipliers of AMX without work
LEAST_PIXELS = 8


@dataclass(frozen=True, slots=True)
class AmxPlan:
    """Blocks of 32 pixels by 32 outputs in tile registers."""


QConvPlan: TypeAlias = "Tile | QWinogradPlan | AmxPlan"  # a tile: direct


def fits_amx(node: Node, ctx: Context) -> bool:
    """Whether a dense convolution of blocked cells gives tile registers enough to do."""
    if not ctx.target.amx or attr(node, "group") != 1 or not node.required(0).layout:
        return False
    _, channels, *space = node.output.shape
    outputs, channels, *_ = node.required(1).shape
    pixels = numel(space)
    enough = not isinstance(pixels, int) or pixels >= LEAST_PIXELS
    sizes = all(isinstance(dim, int) and dim >= LEAST_PER_CELL for dim in (outputs, channels))
    return enough and sizes


def plan_qconv(node: Node, ctx: Context) -> QConvPlan:
    """The plan of a QConv of known weights whose output is blocked."""
    weights = node.required(1).constant
    assert weights is not None
    shape, groups = conv_shape(node, weights.shape[2:]), attr(node, "group")
    ways = rank_whole(shape, ctx.target, weights) if _may_transform(node) else [None]
    plans: dict[str, QConvPlan] = {}
    if fits_amx(node, ctx) and weights.dtype == np.int8:
        plans["amx"] = AmxPlan()
    plans |= dict(plan for way in ways for plan in _plans(way, shape, groups, ctx.target))
    problem = conv_problem("QConv", shape.flat(), groups, block_of(node.required(0).layout))
    return ctx.choose(node, problem, plans)


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
    for tile in rank_q_tiles(target, flat.columns.out, blocks):
        yield f"direct {tile}", tile
