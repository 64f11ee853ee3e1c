"""A trial: models loaded just as the server loads them, with no port opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tuili.server.dataplane import DataPlane
from tuili.server.naming import dataplane_of
from tuili.server.options import ServerOptions

Seen = TypeVar("Seen")


def on_loaded(
    options: ServerOptions, names: Sequence[str], look: Callable[[DataPlane], Seen]
) -> Seen:
    """What `look` sees once these models (none named: all) are loaded or have failed to."""
    trial = replace(options, model_control_mode="explicit", load_models=tuple(names) or ("*",))
    return asyncio.run(_on_loaded(trial, look))


async def _on_loaded(options: ServerOptions, look: Callable[[DataPlane], Seen]) -> Seen:
    dataplane = dataplane_of(options)
    try:
        await dataplane.start()
        return look(dataplane)
    finally:
        await dataplane.close()
