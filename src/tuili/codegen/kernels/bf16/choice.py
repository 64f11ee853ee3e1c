"""How a convolution is run where products may be bfloat16: the cheapest of three ways.

direct, bf16            half the time of f32 for all products
Winograd, bf16          F(2, 3): a quarter, of 16 for 36
Winograd, f32           F(4, 3): 36 for 144, and less to transform
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeAlias

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.bf16.winograd_numbers import HALVES, WAYS
from tuili.codegen.kernels.conv.choice import MOST_PLANS, may_transform
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.shape import Axis, ConvShape, conv_problem, conv_shape
from tuili.codegen.kernels.conv.winograd_blocks import RIVAL
from tuili.codegen.kernels.conv.winograd_numbers import FLOATS, Numbers
from tuili.codegen.kernels.conv.winograd_plan import (
    WinogradPlan,
    direct_cost,
    plan_winograd,
    winograd_cost,
    winograd_tiles,
    winograd_ways,
)
from tuili.codegen.kernels.conv.winograd_transforms import Winograd
from tuili.codegen.kernels.quantized.input import steps_over_pixels
from tuili.codegen.kernels.quantized.tile import rank_q_tiles
from tuili.codegen.targets import Target
from tuili.ir import Node, block_of

HalvesPlan: TypeAlias = "Tile | WinogradPlan"  # a tile: direct
Way: TypeAlias = "tuple[Winograd | None, Numbers]"


def plan_halves(node: Node, ctx: Context) -> HalvesPlan:
    """The plan of a dense convolution of known weights."""
    weights = node.required(1).constant
    assert weights is not None  # supports_direct
    shape = conv_shape(node, weights.shape[2:])
    ways = rank_ways(shape, ctx.target) if may_transform(node, ctx) else [(None, HALVES)]
    block = block_of(node.required(0).layout)
    sets = [_in_tiles(way, shape, block, ctx.target) for way in ways]
    plans = {**dict(islice(sets[0], MOST_PLANS)), **dict(next(others) for others in sets[1:])}
    problem = conv_problem("Conv in bf16", shape.flat(), 1, block)
    return ctx.choose(node, problem, plans)


def rank_ways(shape: ConvShape, target: Target) -> list[Way]:
    """What may pay, best first."""
    costs: list[tuple[float, Way]] = [(direct_cost(shape, 1, target, HALVES), (None, HALVES))]
    # The channel behind an odd number of them is no zero: anything may lie there.
    rounds = WAYS if shape.channels % 2 == 0 else ()
    for winograd in winograd_ways(shape, 1):
        for numbers in (FLOATS, HALVES) if winograd in rounds else (FLOATS,):
            cost = winograd_cost(winograd, shape, 1, target, numbers)
            costs.append((cost, (winograd, numbers)))
    costs.sort(key=lambda each: each[0])
    return [way for cost, way in costs if cost <= RIVAL * costs[0][0]]


def as_read(shape: ConvShape, block: int) -> ConvShape:
    """The direct convolution of the copied input: of pixels that are stepped over there is none."""
    if block == 1 or not steps_over_pixels(shape):
        return shape
    rows, columns = Axis(shape.rows.out, shape.rows.out, 1), shape.columns.out
    return replace(shape, rows=rows, columns=Axis(columns, columns, 1)).flat()


def _in_tiles(
    way: Way, shape: ConvShape, block: int, target: Target
) -> Iterator[tuple[str, HalvesPlan]]:
    winograd, numbers = way
    if winograd is None:
        flat = as_read(shape.flat(), block)
        for tile in rank_q_tiles(target, flat.columns.out, -(-flat.outputs // target.lanes)):
            yield f"direct {tile}", tile
        return
    for tile in winograd_tiles(shape, 1, target, winograd):
        plan = plan_winograd(shape, 1, target, winograd, tile, numbers)
        name = "winograd" if numbers is HALVES else "f32 winograd"
        yield f"{name} F({winograd.outputs},{winograd.taps}) {tile}", plan
