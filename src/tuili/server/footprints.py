"""Footprints: how much memory models take, or will take: of their processes, or of their files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuili.server.control.reconciler import Front
from tuili.server.repository import namespaces
from tuili.server.repository.dependencies import models_needed
from tuili.server.repository.layout import find_model, versions_of
from tuili.server.serving.servable import Servable


class Footprints:
    """Of the models of one repository, live or not.

    A model in processes of its own takes what is resident of them. One in the server's process
    maps its weights, so it takes about what its files do, and what its runs keep.
    """

    def __init__(self, folders: Sequence[Path], live: Mapping[str, Mapping[str, Front]]) -> None:
        self._folders = folders
        self._live = live
        self._files: dict[tuple[str, str], int] = {}
        self._measured: dict[str, int] = {}

    def of(self, model: str) -> int:
        """Bytes of a live model now."""
        return sum(
            sum(host.rss_bytes() for host in running.hosts)
            or self._file_bytes(model, version) + _held_bytes(running)
            for version, running in self._live.get(model, {}).items()
            if version
        )

    def measure(self, model: str) -> int:
        """As `of`, for a model that was just loaded; remembered for its next load. Blocks."""
        for version in self._live.get(model, {}):
            self._files.pop((model, version), None)
        self._measured[model] = found = self.of(model)
        return found

    def estimate(self, model: str) -> int:
        """What loading a model will take, with the parts of it that are not live. Blocks."""
        return self._estimate(model, set())

    def _estimate(self, model: str, seen: set[str]) -> int:
        folder = find_model(self._folders, model)
        if folder is None or model in seen or model in self._live:
            return 0
        seen.add(model)
        config = namespaces.read(self._folders, model, folder)
        needed = models_needed(folder, config, self._folders)
        parts = sum(self._estimate(part, seen) for part in needed)
        if model in self._measured:
            return parts + self._measured[model]
        versions = config.versions.select(versions_of(folder))
        return parts + sum(_size_of(folder / str(version)) for version in versions)

    def _file_bytes(self, model: str, version: str) -> int:
        key = (model, version)
        if key not in self._files:
            folder = find_model(self._folders, model)
            self._files[key] = 0 if folder is None else _size_of(folder / version)
        return self._files[key]


def _held_bytes(running: Front) -> int:
    return running.held_bytes() if isinstance(running, Servable) else 0


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).stat().st_size
            except OSError:
                continue
    return total
