"""Sharing: whether the instances of a version are runners of one model that share the cores."""

from __future__ import annotations

from collections.abc import Sequence

from tuili.server.execution.running import Runner
from tuili.server.scheduling.overlap import Overlap


def overlap_of(instances: Sequence[Runner]) -> Overlap | None:
    """What decides how many of them run at once; None where each has a model of its own."""
    models = [each.model for each in instances]
    if len(models) < 2 or models[0] is None or models[0] is not models[-1]:
        return None
    return Overlap(len(models), int(getattr(models[0], "threads", len(models))))
