"""Plan: what follows from the shapes of the inputs alone; kept for the shapes used lately."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

MAX_PLANS = 128


class Plan:
    """Dims and offsets in the form of the native call, and the shapes of the outputs.

    Runs share a plan and only read it. The shape of an output is None when it depends on data.
    """

    __slots__ = (
        "arena_bytes",
        "depends_on_data",
        "dims",
        "dims_address",
        "env",
        "offsets",
        "offsets_address",
        "outputs",
        "used",
    )

    def __init__(self, symbols: Sequence[str], num_offsets: int, env: Mapping[str, int]) -> None:
        self.env = env
        # A data-dependent dim is -1 until a run has found it.
        values = [env.get(name, -1) for name in symbols]
        self.dims = (ctypes.c_int64 * max(len(symbols), 1))(*values)
        self.offsets = (ctypes.c_int64 * max(num_offsets, 1))()
        self.dims_address = ctypes.addressof(self.dims)
        self.offsets_address = ctypes.addressof(self.offsets)
        self.arena_bytes = 0
        self.outputs: list[tuple[str, tuple[int, ...] | None, np.dtype[Any]]] = []
        self.depends_on_data = False  # some dims are known only after a run
        self.used = False  # again, after the run that made it


class PlanCache:
    """Plans by the shapes of the inputs; the number is bounded, whatever shapes arrive.

    Eviction is by second chance: a plan that was used since the last eviction stays. A lookup is
    thus one dictionary access, and needs no lock.
    """

    def __init__(self, limit: int = MAX_PLANS) -> None:
        self.plans: dict[Shapes, Plan] = {}
        self._limit = limit

    def add(self, shapes: Shapes, plan: Plan) -> None:
        """Keep a plan. Called with the model's lock held."""
        while len(self.plans) >= self._limit:
            oldest = next(iter(self.plans))
            evicted = self.plans.pop(oldest)
            if evicted.used:
                evicted.used = False
                self.plans[oldest] = evicted
        self.plans[shapes] = plan
