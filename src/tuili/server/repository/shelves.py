"""Shelves: what the folders of repositories hold now: models, configurations, what changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tuili.errors import InvalidModel, TuiliError
from tuili.server.repository import namespaces
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.dependencies import models_needed
from tuili.server.repository.layout import (
    Namespaced,
    find_model,
    find_models,
    fingerprint,
    model_names,
)

_log = logging.getLogger("tuili.server")


class Shelves:
    """Reads the folders anew whenever it is asked."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def models(self) -> set[str]:
        """The names of all models; none while a repository cannot be read."""
        try:
            return model_names(self._folders)
        except TuiliError as error:
            _log.warning("%s", error)
            return set()

    def folder_of(self, name: str) -> Path | None:
        """The folder of a model; raises InvalidModel for one that several repositories have."""
        return find_model(self._folders, name)

    def read(self, name: str, folder: Path, given: str | None = None) -> ModelConfig:
        """The configuration of a model, as its folder has it or as it was `given`."""
        return namespaces.read(self._folders, name, folder, given)

    def loadable(self, name: str, folder: Path, given: str | None) -> ModelConfig:
        """The configuration of a model that may be loaded."""
        config = self.read(name, folder, given)
        self._check_cycles(folder, config, (name,))
        return config

    def _check_cycles(self, folder: Path, config: ModelConfig, chain: tuple[str, ...]) -> None:
        """Refuse ensembles that contain themselves: loading them would wait for itself."""
        for step in models_needed(folder, config, self._folders):
            if step in chain:
                raise InvalidModel(f"ensembles form a cycle: {' -> '.join((*chain, step))}")
            below = self.folder_of(step)
            if below is not None:
                self._check_cycles(below, self.read(step, below), (*chain, step))

    def fingerprints(self) -> dict[str, object]:
        """Of all models; raises NotFound while a repository cannot be read: it is no decision."""
        return {
            name: self.fingerprint(name, folders[0]) if len(folders) == 1 else tuple(folders)
            for name, folders in find_models(self._folders).items()
        }

    def fingerprint(self, name: str, folder: Path) -> object:
        """Changes with the files, and with what the names of its steps stand for."""
        found = fingerprint(folder)
        if not isinstance(self._folders, Namespaced):
            return found
        try:
            return found, tuple(models_needed(folder, self.read(name, folder), self._folders))
        except TuiliError as error:
            return found, str(error)
