"""Lane: which models a front end may answer by itself, and how it makes them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tuili.server.frontends.messages import Offer, Place
from tuili.server.loading.instances import cores_of, elasticity_of
from tuili.server.loading.launching import Launcher, Origin, digest_of
from tuili.server.loading.preparing import Place as Found
from tuili.server.repository import config as configuration
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.source import Source
from tuili.server.serving.servable import Servable

# What may be said of batches: the rest (priorities, bounds of the queue, an order of answers)
# holds for all requests to a model together.
_BATCHING: Final = frozenset(("preferred_batch_size", "max_queue_delay_microseconds"))


def offer_of(model: str, versions: dict[str, Any], launcher: Launcher) -> Offer:
    """What front ends may answer of a model's live versions; nothing, in many cases."""
    found = Offer(model, {})
    if not all(isinstance(front, Servable) for front in versions.values()):
        return found  # A roll-out wants to see every request.
    for version, front in versions.items():
        if front not in launcher.origins:
            continue
        origin = launcher.origins[front]
        if not is_shared(front, origin):
            continue
        if version:
            found.places[version] = _place(origin)
        else:
            found.default = front.version
    if found.default not in found.places:
        found.default = ""
    return found


def is_shared(servable: Servable, origin: Origin) -> bool:
    """Whether it makes no difference which process answers: no state, no bound, no process."""
    config = origin.config
    return (
        servable.plain
        and not servable.hosts
        and frozenset(config.raw.get("dynamic_batching", {})) <= _BATCHING
        and elasticity_of(config) is None
        and not cores_of(config, 0)
    )


def _place(origin: Origin) -> Place:
    found = origin.place
    return Place(
        str(found.folder),
        found.version,
        found.backend,
        str(found.path),
        json.dumps(origin.config.raw),
        origin.digest,
    )


async def made_again(model: str, place: Place, launcher: Launcher) -> Servable | None:
    """The version at a place; None when what is there now is not what was offered."""
    found = Found(Path(place.folder), place.version, place.backend, Path(place.path))
    servable = await launcher.again(found, _config(model, place))
    if digest_of(found.folder) == place.digest:
        return servable
    await servable.close()
    return None


def _config(model: str, place: Place) -> ModelConfig:
    source = Source(f"the configuration of {model!r}")
    return configuration.from_json(model, json.loads(place.config), source)
