"""Conv by Winograd in models compiled for bfloat16: its products are bf16 or f32, as is faster."""

from __future__ import annotations

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.bf16.choice import HalvesPlan, plan_halves
from tuili.codegen.kernels.bf16.conv import is_worth_it
from tuili.codegen.kernels.bf16.winograd_numbers import HALVES
from tuili.codegen.kernels.conv.winograd import emit_with
from tuili.codegen.kernels.conv.winograd_plan import WinogradPlan
from tuili.ir import Node


def supports(node: Node, ctx: Context) -> bool:
    """Whether Winograd in bfloat16 is best."""
    plan = _plan(node, ctx)
    return isinstance(plan, WinogradPlan) and plan.numbers is HALVES


def supports_floats(node: Node, ctx: Context) -> bool:
    """Whether Winograd in f32 is best, though products may be bfloat16."""
    plan = _plan(node, ctx)
    return isinstance(plan, WinogradPlan) and plan.numbers is not HALVES


def emit(node: Node, ctx: Context) -> None:
    """The calls of the plan."""
    weights, plan = node.required(1).constant, plan_halves(node, ctx)
    assert weights is not None  # supports
    assert isinstance(plan, WinogradPlan)
    emit_with(node, ctx, plan, weights)


def _plan(node: Node, ctx: Context) -> HalvesPlan | None:
    return plan_halves(node, ctx) if is_worth_it(node, ctx) else None
