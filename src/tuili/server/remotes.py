"""Remotes: the mirrors of a server's remote repositories, brought up to date when it looks."""

from __future__ import annotations

import asyncio
import logging
import time

from tuili.errors import TuiliError, Unavailable
from tuili.server.options import ServerOptions
from tuili.server.remote.mirror import Mirror
from tuili.server.remote.store import options_for
from tuili.server.repository import namespaces
from tuili.server.repository.compiling import cache_folder
from tuili.server.repository.dependencies import models_needed
from tuili.server.repository.layout import Namespaced, find_model

_log = logging.getLogger("tuili.server")

_REPORT_EVERY_S = 2.0


class Remotes:
    """All of them; everything here waits for the network and runs on a thread."""

    def __init__(self, options: ServerOptions) -> None:
        cache = cache_folder(options.cache)
        self._folders = places = options.repository
        named = places.by_name.items() if isinstance(places, Namespaced) else ()
        self._spaces = {folder: space for space, folder in named}
        self._mirrors = [
            Mirror(url, cache, options_for(url, options.repository_config))
            for url in options.remotes
        ]

    async def refresh(self) -> None:
        """Fetch what is new; raises Unavailable when a repository is out of reach and not here."""
        for mirror in self._mirrors:
            await asyncio.to_thread(mirror.refresh, None, _Progress(mirror.url))

    async def fetch(self, model: str) -> None:
        """Fetch one model and the models that it is made of; raises Unavailable."""
        if self._mirrors:
            await asyncio.to_thread(self._fetch, model, set[str]())

    async def names(self) -> list[str]:
        """The models of all remote repositories."""
        found: set[str] = set()
        for mirror in self._mirrors:
            names = await asyncio.to_thread(mirror.names)
            space = self._spaces.get(mirror.folder)
            found |= {f"{space}/{name}" if space else name for name in names}
        return sorted(found)

    def _fetch(self, model: str, seen: set[str]) -> None:
        seen.add(model)
        space, _, name = model.rpartition("/")
        for mirror in self._mirrors:
            if space and self._spaces.get(mirror.folder) != space:
                continue
            failed = mirror.refresh([name], _Progress(mirror.url))
            if name in failed:
                raise Unavailable(f"load failed for model '{model}': {failed[name]}")
        folder = find_model(self._folders, model)
        if folder is None:
            return
        try:
            config = namespaces.read(self._folders, model, folder)
            parts = models_needed(folder, config, self._folders)
        except TuiliError:
            return  # loading tells what is wrong with it
        for part in parts:
            if part not in seen:
                self._fetch(part, seen)


class _Progress:
    """Logs how far a fetch is, now and then."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._next = time.monotonic() + _REPORT_EVERY_S

    def __call__(self, came: int, wanted: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_EVERY_S
            _log.info("%s: %.1f of %.1f MB", self._url, came / 1e6, wanted / 1e6)
