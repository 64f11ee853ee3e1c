"""Remotes: the mirrors of a server's remote repositories, brought up to date when it looks."""

from __future__ import annotations

import asyncio
import logging
import time

from tuili.errors import TuiliError, Unavailable
from tuili.server.options import ServerOptions
from tuili.server.remote.mirror import Mirror
from tuili.server.remote.store import options_for
from tuili.server.repository import config as configuration
from tuili.server.repository.compiling import cache_folder
from tuili.server.repository.dependencies import models_needed
from tuili.server.repository.layout import find_model

_log = logging.getLogger("tuili.server")

_REPORT_EVERY_S = 2.0


class Remotes:
    """All of them; everything here waits for the network and runs on a thread."""

    def __init__(self, options: ServerOptions) -> None:
        cache = cache_folder(options.cache)
        self._folders = options.repository
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
        found = [await asyncio.to_thread(mirror.names) for mirror in self._mirrors]
        return sorted({name for names in found for name in names})

    def _fetch(self, model: str, seen: set[str]) -> None:
        seen.add(model)
        for mirror in self._mirrors:
            failed = mirror.refresh([model], _Progress(mirror.url))
            if model in failed:
                raise Unavailable(f"load failed for model '{model}': {failed[model]}")
        folder = find_model(self._folders, model)
        if folder is None:
            return
        try:
            parts = models_needed(folder, configuration.read(folder))
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
