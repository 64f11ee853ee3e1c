"""What a queue obeys: batch sizes, delay, priority levels, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """Limits of one priority level; 0 means no limit."""

    max_queue_size: int = 0
    timeout_s: float = 0.0
    allow_timeout_override: bool = False
    on_timeout: Literal["reject", "delay"] = "reject"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How requests are joined. `max_rows` 0 or `merge` false: every request runs alone."""

    max_rows: int = 0
    merge: bool = False
    preferred_rows: tuple[int, ...] = ()
    max_delay_s: float = 0.0
    # Whether a small request may overtake a large one that does not fit in the batch.
    pack: bool = False
    # Whether answers leave in the order in which their requests came.
    in_order: bool = False
    # Whether a request's own timeout holds for its run too, not only for its time in the queue.
    end_to_end: bool = False
    priority_levels: int = 0
    default_level: int = 0
    level: LevelPolicy = field(default_factory=LevelPolicy)
    levels: Mapping[int, LevelPolicy] = field(default_factory=dict[int, LevelPolicy])

    @property
    def is_queue_limited(self) -> bool:
        """Whether it matters who waits in the queue, and for how long."""
        each = (self.level, *self.levels.values())
        overrides = not self.end_to_end and any(level.allow_timeout_override for level in each)
        return bool(self.priority_levels) or self.has_limits or overrides

    @property
    def has_limits(self) -> bool:
        """Whether some level bounds how many wait, or how long."""
        each = (self.level, *self.levels.values())
        return any(level.max_queue_size or level.timeout_s for level in each)

    def level_of(self, priority: int) -> int:
        """The level of a request's `priority` parameter: 0 or unknown is the default level."""
        if not self.priority_levels:
            return 0
        return priority if 1 <= priority <= self.priority_levels else self.default_level

    def policy_of(self, level: int) -> LevelPolicy:
        """The limits of a level."""
        return self.levels.get(level, self.level)
