"""The instances of a model, from its instance groups: what they claim, where they are pinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tuili.errors import InvalidModel
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.resources import Claim
from tuili.server.scheduling.scaling import Elasticity

# Entries of `parameters` in a configuration.
CPU_CORES: Final = "cpu_cores"
MOST: Final = "max_instances"


def claims_of(config: ModelConfig) -> tuple[Claim, ...]:
    """What each instance claims, in the order of the groups; none when no group claims anything."""
    found: list[Claim] = []
    groups: Sequence[dict[str, Any]] = config.raw.get("instance_group", ())
    for group in groups:
        if group.get("passive"):
            continue
        limiter = group.get("rate_limiter", {})
        claim = Claim(
            {
                # There is one device, so a resource per device is one of the whole server.
                entry.get("name", ""): int(entry.get("count", 0))
                for entry in limiter.get("resources", ())
            },
            max(int(limiter.get("priority", 0)), 1),
        )
        found += [claim] * int(group.get("count", 1))
    return tuple(found)


def cores_of(config: ModelConfig, instance: int) -> frozenset[int]:
    """The cores that an instance may use, from `0-3;4-7`, one part per instance; empty: all."""
    text = config.parameters.get(CPU_CORES, "")
    if not text:
        return frozenset()
    parts = text.split(";")
    cores: set[int] = set()
    try:
        for part in parts[instance % len(parts)].split(","):
            first, _, last = part.partition("-")
            cores |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        cores = set()
    if not cores:
        raise InvalidModel(
            f"model '{config.name}': parameter {CPU_CORES!r} must be cores such as '0-3;4,5', one "
            f"part per instance, got {text!r}"
        )
    return frozenset(cores)


def elasticity_of(config: ModelConfig) -> Elasticity | None:
    """The bounds of an elastic number of instances; None when it is fixed."""
    text = config.parameters.get(MOST, "")
    if not text:
        return None
    if not text.isdigit() or int(text) < config.instances:
        raise InvalidModel(
            f"model '{config.name}': parameter {MOST!r} must be a number of at least the "
            f"{config.instances} configured, got {text!r}"
        )
    return Elasticity(least=config.instances, most=int(text))
