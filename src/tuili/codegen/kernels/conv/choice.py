"""How a dense convolution is run: by Winograd's F(m, 3) or directly, and in which register tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TypeAlias

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.conv.gather import gathered
from tuili.codegen.kernels.conv.plan import L2_BYTES, DirectPlan, direct_tiles, plan_direct
from tuili.codegen.kernels.conv.shape import ConvShape, conv_problem, conv_shape
from tuili.codegen.kernels.conv.winograd_plan import (
    WinogradPlan,
    plan_winograd,
    rank_winograd,
    winograd_tiles,
)
from tuili.codegen.kernels.conv.winograd_transforms import Winograd
from tuili.codegen.targets import Target
from tuili.ir import Node, block_of
from tuili.ops.table import attr

ConvPlan: TypeAlias = "DirectPlan | WinogradPlan"

MOST_PLANS = 3  # of the best way to compute; others have their best only
NEAR_BYTES, FAR_BYTES = 16 << 10, L2_BYTES // 2  # of weights that tiles share


def plan_conv(node: Node, ctx: Context) -> ConvPlan:
    """The plan of a Conv whose maps are f32, its output blocked and its weights known."""
    shape = _shape(node)
    problem, plans = _ranked(node, ctx, shape)
    return ctx.choose(node, problem, plans)


def plan_for(node: Node, ctx: Context, images: int) -> ConvPlan:
    """The cost model's plan for so many images of an open batch."""
    shape = replace(_shape(node), likely_batch=images)
    return next(iter(_ranked(node, ctx, shape)[1].values()))


def _shape(node: Node) -> ConvShape:
    weights = node.required(1).constant
    assert weights is not None
    return conv_shape(node, weights.shape[2:])


def _ranked(node: Node, ctx: Context, shape: ConvShape) -> tuple[str, Mapping[str, ConvPlan]]:
    """The problem and its plans, the cost model's first."""
    groups, block = attr(node, "group"), block_of(node.required(0).layout)
    ways = rank_winograd(shape, groups, ctx.target) if may_transform(node, ctx) else [None]
    packed = gathered(shape, block, ctx.target.lanes)
    if packed is not None:
        plans = {
            f"gathered, {name}": replace(plan, is_gathered=True)
            for name, plan in islice(_direct(packed, groups, block, ctx.target), MOST_PLANS)
        }
        return conv_problem("Conv", shape, groups, block), plans
    sets = [_in_tiles(way, shape, groups, block, ctx.target) for way in ways]
    plans = {**dict(islice(sets[0], MOST_PLANS)), **dict(next(others) for others in sets[1:])}
    return conv_problem("Conv", shape.flat(), groups, block), plans


def may_transform(node: Node, ctx: Context) -> bool:
    """Whether rounding is free, and the window is 3x3 or 3 of stride 1 or 2, or any line."""
    if ctx.exact or not node.required(0).layout:
        return False
    taps, strides = node.required(1).shape[2:], set(attr(node, "strides") or (1,))
    plain = set(attr(node, "dilations") or (1,)) == {1}
    is_line = len(taps) == 1 and strides == {1}
    return is_line or (plain and taps in ((3, 3), (3,)) and strides in ({1}, {2}))


def _in_tiles(
    way: Winograd | None, shape: ConvShape, groups: int, block: int, target: Target
) -> Iterator[tuple[str, ConvPlan]]:
    """One way to compute with every tile that fits it, the cost model's first."""
    if way is None:
        yield from _direct(shape.flat(), groups, block, target)
        return
    for tile in winograd_tiles(shape, groups, target, way):
        plan = plan_winograd(shape, groups, target, way, tile)
        yield f"winograd F({way.outputs},{way.taps}) {tile}", plan


def _direct(
    shape: ConvShape, groups: int, block: int, target: Target
) -> Iterator[tuple[str, DirectPlan]]:
    """Direct plans: the first tile with longer or shorter chunks of weights too, then the others.

    What a chunk is cut to stays in the cache that the target's row names; the other may do better.
    """
    first, *others = direct_tiles(shape, groups, block, target)
    plan = plan_direct(shape, groups, block, target, first)
    yield f"direct {first}", plan
    other = FAR_BYTES if target.near_bytes else NEAR_BYTES
    cut = plan_direct(shape, groups, block, replace(target, near_bytes=other), first)
    if cut.chunk != plan.chunk:
        yield f"direct {first}, chunks of {other >> 10} KiB", cut
    for tile in others:
        yield f"direct {tile}", plan_direct(shape, groups, block, target, tile)
