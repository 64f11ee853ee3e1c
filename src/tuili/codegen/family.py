"""Family: one way to run an operator, with the predicate that says when it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tuili.codegen.kernel import Context
from tuili.ir import Node

Emit: TypeAlias = "Callable[[Node, Context], None]"


def always(node: Node, ctx: Context) -> bool:
    """The predicate of a family that runs every node of its operator."""
    return True


@dataclass(frozen=True, slots=True)
class Family:
    """A kernel family: `supports(node, ctx)` says whether `emit(node, ctx)` can run the node."""

    name: str
    emit: Emit
    supports: Callable[[Node, Context], bool] = always
