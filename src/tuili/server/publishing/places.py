"""Places: a repository that people publish to, a folder or behind a URL."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from tuili.errors import NotFound, Unavailable
from tuili.server.publishing import publish as publishing
from tuili.server.publishing import remote, versions
from tuili.server.publishing.publish import Draft
from tuili.server.registry.record import Record
from tuili.server.remote.mirror import Mirror
from tuili.server.remote.store import Store, is_url, options_for
from tuili.server.repository.compiling import cache_folder

Found = TypeVar("Found")


class Place(Protocol):
    """A repository that can be published to."""

    def publish(
        self,
        model: str,
        draft: Draft,
        *,
        version: int | None = None,
        allow_signature_change: bool = False,
        key: Path | None = None,
    ) -> Record:
        """As `publish.publish`."""
        ...

    def decide(self, model: str, decision: Callable[[Path], Found]) -> Found:
        """What a function of `versions` says of, or does to, a model's folder; NotFound."""
        ...

    def whole(self, model: str) -> Path:
        """The folder of a model with all of its content."""
        ...


def place_of(where: str, config: Path | None = None) -> Place:
    """The repository at a path or URL; `config` holds the credentials of URLs."""
    if not is_url(where):
        return _Folder(Path(where))
    return _Remote(where, Store(where, options_for(where, config)), config)


class _Folder:
    """A folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.publish = partial(publishing.publish, path)

    def decide(self, model: str, decision: Callable[[Path], Found]) -> Found:
        return decision(self.whole(model))

    def whole(self, model: str) -> Path:
        if not self._path.is_dir():
            raise NotFound(f"no repository folder {str(self._path)!r}; make it first")
        return versions.model_folder((self._path,), model)


class _Remote:
    """A folder behind a URL."""

    def __init__(self, url: str, store: Store, config: Path | None) -> None:
        self._url = url
        self._store = store
        self._config = config
        self.publish = partial(remote.publish, store)

    def decide(self, model: str, decision: Callable[[Path], Found]) -> Found:
        return remote.decide(self._store, model, decision)

    def whole(self, model: str) -> Path:
        mirror = Mirror(self._url, cache_folder(None), options_for(self._url, self._config))
        failed = mirror.refresh([model])
        if failed:
            raise Unavailable("; ".join(failed.values()))
        return versions.model_folder((mirror.folder,), model)
