"""Convolutions of an open batch by several plans, each for a range of batches.

For one image of a small map nothing but reading the weights takes time; for many the largest
transform does least, and the weights stay in the cache. The run has the calls of all plans; those
of other batches than its own have no items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.conv.choice import ConvPlan, plan_conv, plan_for
from tuili.codegen.kernels.conv.direct import emit_planned, supports_direct
from tuili.codegen.kernels.conv.plan import DirectPlan
from tuili.codegen.kernels.conv.winograd import emit_with
from tuili.codegen.kernels.conv.winograd_plan import WinogradPlan
from tuili.ir import Node
from tuili.tensors import Dim, dim_min

STEPS = (1, 4, 8, 16, 32)  # images from where on another plan may be taken


def supports(node: Node, ctx: Context) -> bool:
    """Whether one plan is not best for all batches of known maps."""
    maps = (*node.required(0).shape[2:], *node.output.shape[2:])
    is_open = not isinstance(node.output.shape[0], int) and all(isinstance(d, int) for d in maps)
    return is_open and not ctx.bf16 and supports_direct(node, ctx) and len(_plans(node, ctx)) > 1


def emit(node: Node, ctx: Context) -> None:
    """The calls of all plans."""
    plans = _plans(node, ctx)
    starts = list(plans)
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        beyond = 0 if end is None else _at_least(node, end)
        ctx.only_if = _at_least(node, start) - beyond
        _emit_plan(node, ctx, plans[start])
    ctx.only_if = 1


def _emit_plan(node: Node, ctx: Context, plan: ConvPlan) -> None:
    if isinstance(plan, DirectPlan):
        emit_planned(node, ctx, plan)
        return
    weights = node.required(1).constant
    assert weights is not None  # supports
    emit_with(node, ctx, plan, weights)


def _at_least(node: Node, images: int) -> Dim:
    """1 where the batch has so many images, else 0."""
    return 1 if images == 1 else dim_min(node.output.shape[0] // images, 1)


def _plans(node: Node, ctx: Context) -> dict[int, ConvPlan]:
    """The plans by the batches that they start at; the likely one's may have been measured."""
    chosen = plan_conv(node, ctx)
    found: dict[int, ConvPlan] = {}
    for images in STEPS:
        is_likely = images == (STEPS[0] if chosen.shape.likely_batch == 1 else STEPS[-1])
        plan = chosen if is_likely else plan_for(node, ctx, images)
        if not found or _kind(plan) != _kind(next(reversed(found.values()))):
            found[images] = plan
    return {images: _sharing(plan, found.values()) for images, plan in found.items()}


def _sharing(plan: ConvPlan, plans: Iterable[ConvPlan]) -> ConvPlan:
    """A spread plan in the order of weights of one that is not, where both pack the same.

    That costs up to 2 % of its time; weights of their own would be four to nine times the model's.
    """
    if isinstance(plan, DirectPlan) or not plan.is_spread:
        return plan
    packing = plan.winograd, plan.tile.vectors
    same = [
        other
        for other in plans
        if isinstance(other, WinogradPlan)
        and not other.is_spread
        and (other.winograd, other.tile.vectors) == packing
    ]
    return replace(plan, is_sharing=True) if same else plan


def _kind(plan: ConvPlan) -> tuple[object, ...]:
    """What is worth another plan: another way to compute, or to read large weights."""
    return () if isinstance(plan, DirectPlan) else (plan.winograd.outputs, plan.is_spread)
