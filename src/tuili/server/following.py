"""Following: the server keeps up with its repositories, by looking or by being told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.options import FOLLOWS, ServerOptions

_log = logging.getLogger("tuili.server")

# Events come in bursts: one look for all of a tenth of a second.
_BURST_MS: Final = 100


async def follow(dataplane: DataPlane, options: ServerOptions) -> None:
    """In poll and events mode, look whenever it is time to; for ever.

    File systems of other machines and remote repositories send no events, so the interval holds
    in both modes.
    """
    if options.model_control_mode not in FOLLOWS:
        return
    changed = asyncio.Event()
    watching = asyncio.create_task(_watch(options, changed))
    told = ""
    settled = False  # look once more soon: models were loaded before the watch began
    try:
        while True:
            wait_s = options.poll_interval_s
            await _set_within(changed, wait_s if settled else min(wait_s, options.settle_s))
            changed.clear()
            try:
                settled = await dataplane.poll()
                told = ""
            except Exception as error:  # noqa: BLE001 - a model that goes while it is looked at
                # Whatever it is, the next look may find it gone; no look finds nothing ever after.
                bug = not isinstance(error, TuiliError | OSError)
                if told != (told := str(error)):
                    _log.error("polling the repository: %s", error, exc_info=bug)
    finally:
        watching.cancel()


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


async def _watch(options: ServerOptions, changed: asyncio.Event) -> None:
    """Set `changed` when the system tells of a change in a local folder."""
    if options.model_control_mode != "events":
        return
    try:
        await _tell(options.repository, changed)
    except ImportError:
        why = "it needs `pip install 'tuili[watch]'`"
    except (OSError, RuntimeError) as error:
        why = str(error)  # too many watches, or a file system without
    else:
        return
    _log.warning(
        "no events of the file system: %s; looking every %g s instead", why, options.poll_interval_s
    )


async def _tell(folders: Sequence[Path], changed: asyncio.Event) -> None:
    from watchfiles import awatch

    def of_models(_change: object, path: str) -> bool:
        """Whether a change may concern a model: hidden files are the journal's and of copies."""
        inside = next(Path(path).relative_to(each) for each in roots if path.startswith(str(each)))
        return not any(part.startswith(".") for part in inside.parts)

    roots = [folder.resolve() for folder in folders]
    async for _ in awatch(*roots, watch_filter=of_models, debounce=_BURST_MS):
        changed.set()
