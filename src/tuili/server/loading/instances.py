"""The instances of a model, from its instance groups: what they claim, where they are pinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tuili.backends import Executable
from tuili.errors import InvalidModel
from tuili.runtime.cpu import available_threads
from tuili.server.execution.instances import Instance
from tuili.server.execution.running import Runner
from tuili.server.options import ServerOptions
from tuili.server.repository.config import ModelConfig, count_of
from tuili.server.scheduling.resources import Claim
from tuili.server.scheduling.scaling import Elasticity

# Entries of `parameters` in a configuration.
CPU_CORES: Final = "cpu_cores"
MOST: Final = "max_instances"
THREADS: Final = "threads"
# Each run has memory of its own for what lies between its layers.
_MOST_AT_ONCE: Final = 8


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
        found += [claim] * count_of(group)
    return tuple(found)


def claims_by_runner(config: ModelConfig, runners: Sequence[Runner]) -> dict[Runner, Claim]:
    """What each runner claims; the slots of a host claim as its instance does."""
    claims = claims_of(config) or (Claim(),)
    each = max(len(runners) // len(claims), 1)
    return {runner: claims[min(at // each, len(claims) - 1)] for at, runner in enumerate(runners)}


def cores_of(config: ModelConfig, instance: int) -> frozenset[int]:
    """The cores that an instance may use, from `0-3;4-7`, one part per instance; empty: all."""
    text = config.parameters.get(CPU_CORES, "")
    if not text:
        return frozenset()
    parts = text.split(";")
    cores: set[int] = set()
    for part in parts[instance % len(parts)].split(","):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def threads_of(config: ModelConfig, options: ServerOptions) -> int:
    """Threads of one run; where nobody says so, this process's share of the cores."""
    text = config.parameters.get(THREADS, str(options.threads))
    return int(text) or share_of_cores(options)


def share_of_cores(options: ServerOptions) -> int:
    """The threads of this process, of those that all front ends have together."""
    return max(available_threads() // options.frontends, 1)


def instances_of(
    config: ModelConfig, models: Sequence[Executable], name: str, options: ServerOptions
) -> list[Instance]:
    """What runs loaded models in this process.

    A model that nobody configured is loaded once and has a runner per core, 8 at most. As long as
    one run is there it takes all cores; runs at once share them, which wastes less than threads
    that wait for each other.
    """
    found = [Instance(each, name, cores_of(config, at)) for at, each in enumerate(models)]
    if _configured(config, options) or not hasattr(models[0], "run_on"):
        return found
    at_once = min(threads_of(config, options), _MOST_AT_ONCE)
    return found + [Instance(models[0], name) for _ in range(at_once - 1)]


def _configured(config: ModelConfig, options: ServerOptions) -> bool:
    """Whether somebody has said how many runs there are at once, or what each may take."""
    keys = ("instance_group", "dynamic_batching", "sequence_batching")
    return (
        options.rate_limit != "off"
        or config.parameters.get(THREADS, str(options.threads)) != "0"
        or any(config.raw.get(key) is not None for key in keys)
        or any(key in config.parameters for key in (CPU_CORES, MOST))
    )


def elasticity_of(config: ModelConfig) -> Elasticity | None:
    """The bounds of an elastic number of instances; None when it is fixed."""
    text = config.parameters.get(MOST, "")
    if not text:
        return None
    if int(text) < config.instances:
        raise InvalidModel(
            f"model '{config.name}': parameter {MOST!r} must be a number of at least the "
            f"{config.instances} configured, got {text!r}"
        )
    return Elasticity(least=config.instances, most=int(text))
