"""Repository: which models are live; load, reload, unload and poll them.

Theory of operation
- Loading makes a complete new version beside the old one: configuration, compiled artifact,
  instances, warm-up. Only then the table `live` is switched, in one assignment, and the old
  version drains: it finishes what it has and is released. A failed reload leaves the old one be.
- `live[model][version]` (and `live[model][""]` for the newest) is what every request looks up.
- Loads of one model follow each other; different models load side by side.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from tuili.backends.host_messages import END_S
from tuili.errors import InternalError, InvalidModel, NotPolled, TuiliError
from tuili.server.registry import ledger
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.departures import Departures, Leaver
from tuili.server.repository.errands import Errands
from tuili.server.repository.homes import Homes
from tuili.server.repository.layout import (
    no_version,
    require_files,
    versions_of,
)
from tuili.server.repository.overrides import Overrides
from tuili.server.repository.selection import Selection
from tuili.server.repository.settling import being_written, copies
from tuili.server.repository.shelves import Shelves
from tuili.server.repository.states import State, VersionState
from tuili.server.scheduling.loads import Loads

_log = logging.getLogger("tuili.server")
# How long a look at the disk waits for the loads and unloads that it has begun.
_LOOK_S: Final = 1.0
_CLOSE_S: Final = END_S + 5.0  # models have END_S to end themselves


Running = TypeVar("Running", bound=Leaver)


class Repository(Generic[Running]):
    """The models of one server."""

    def __init__(
        self,
        folders: Sequence[Path],
        launch: Callable[[Path, ModelConfig, int], Awaitable[Running]],
        settle_s: float = 0.0,
    ) -> None:
        self.live: dict[str, dict[str, Running]] = {}
        self._shelves = Shelves(folders)
        self._launch = launch
        self._settle_s = settle_s
        self._copying: dict[str, dict[int, str]] = {}
        self._states: dict[str, dict[int, VersionState]] = {}
        self._failed: dict[str, str] = {}
        # As long as someone has one: a name that is asked for need not be a model's.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Those of models that hold their locks, which others may wait for.
        self.loads = Loads()
        self._seen: dict[str, object] = {}
        # Live models whose configuration came with the request that loaded them.
        self._given: set[str] = set()
        # What looks at the disk have begun: nobody waits for one model that takes long.
        self._coming, self._leaving = Errands(), Errands()
        self.look_s = _LOOK_S
        self.selection: Selection[Running] = Selection()
        self.homes: Homes[Running] = Homes()
        self.departures = Departures(self.homes)
        # How often other versions of a model began to answer: what was made before is theirs.
        self.changes: Counter[str] = Counter()
        # Told the name of a model whenever other versions answer than before.
        self.on_change: Callable[[str], None] = _nobody
        # Ends the loads of a model that hang, and without a name all loads.
        self.abandon: Callable[[str], None] = _nobody

    # ---- reading
    def index(self, ready_only: bool = False) -> list[dict[str, Any]]:
        """Every model on disk or loaded, each version with its state and reason."""
        entries: list[dict[str, Any]] = []
        for name in sorted({*self._states, *self._shelves.models()}):
            states = self._states.get(name, {})
            shown = [states[v].json(name) for v in sorted(states)]
            shown += [
                {"name": name, "version": str(v), "state": "UNAVAILABLE", "reason": why}
                for v, why in self._copying.get(name, {}).items()
                if v not in states
            ]
            if not shown and name in self._failed:
                reason = self._failed[name]
                shown = [{"name": name, "state": "UNAVAILABLE", "reason": reason}]
            if ready_only:
                entries += [entry for entry in shown if entry.get("state") == "READY"]
            else:
                entries += shown or [{"name": name}]
        return entries

    def failures(self) -> dict[str, str]:
        """The models that were wanted and are not ready, with their causes."""
        found = dict(self._failed)
        for name, states in self._states.items():
            for entry in states.values():
                gone = entry.beside or entry.reason in ("", "unloaded")
                if entry.state is State.UNAVAILABLE and not gone:
                    found[name] = f"version {entry.version}: {entry.reason}"
        return found

    def states_of(self, name: str) -> dict[int, VersionState]:
        """The states of a model's versions."""
        return self._states.get(name, {})

    def find(self) -> list[str]:
        """The names of all models on disk."""
        return sorted(self._shelves.models())

    # ---- changing
    async def load_all(self, names: Sequence[str]) -> None:
        """Load these models; what fails is told by `failures`, not raised."""

        async def one(name: str) -> None:
            try:
                await self.load(name)
            except TuiliError as error:
                _log.error("model %s: %s", name, error)

        await asyncio.gather(*(one(name) for name in names))

    async def load(self, name: str, overrides: Overrides | None = None) -> None:
        """Load or reload a model; raises when a version that should be served does not load."""
        async with self._loading(name):
            folder = (overrides and overrides.folder) or self._folder_of(name)
            if folder is None:
                raise InternalError(
                    f"failed to load '{name}', failed to poll from model repository"
                )
            seen = await asyncio.to_thread(self._shelves.fingerprint, name, folder)
            given = overrides.config if overrides else None
            if given is None and name in self._given and self._seen.get(name) == seen:
                # As in Triton, a configuration that came with a load holds until files change.
                return
            self._seen[name] = seen
            self._given.discard(name)
            try:
                # A long text takes long to read, and requests go on meanwhile.
                config = await asyncio.to_thread(self._shelves.loadable, name, folder, given)
                versions = self.selection.versions(name, config.versions, versions_of(folder))
                if not versions:
                    raise InvalidModel(
                        f"at least one version must be available under the version policy of model "
                        f"'{name}'; {folder} has {versions_of(folder) or no_version(folder)}"
                    )
            except TuiliError as error:
                self._failed[name] = str(error)
                raise NotPolled(
                    f"failed to load '{name}', failed to poll from model repository: {error}"
                ) from error
            await self._load_versions(name, folder, config, versions)
            if overrides and given is not None and overrides.folder is None:
                self._given.add(name)

    @asynccontextmanager
    async def _loading(self, name: str) -> AsyncGenerator[None]:
        """A load of a model, once nothing else changes it."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            with self.loads.begun(name):
                yield

    async def ensure(self, name: str) -> None:
        """Load a model unless it is live: what another model is made of."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        if lock.locked():
            async with lock:
                pass
        if name not in self.live:
            await self.load(name)

    async def add_version(self, name: str, version: int) -> None:
        """Load one more version beside those that serve; which one answers does not change."""
        async with self._loading(name):
            if str(version) in self.live.get(name, {}):
                return
            folder = self._shelves.folder_of(name)
            there = versions_of(folder) if folder is not None else []
            if folder is None or version not in there:
                raise InvalidModel(
                    f"version {version} of model '{name}' is not in the repository; "
                    f"it has {', '.join(map(str, there)) or 'none'}"
                )
            states = self._states.setdefault(name, {})
            _entry(states, version).beside = True
            config = await asyncio.to_thread(self._shelves.read, name, folder)
            running = await self._load_version(folder, config, version, states)
            if running is None:
                raise InvalidModel(f"version {version} of '{name}': {states[version].reason}")
            self._switch(name, self.live.get(name, {}) | {str(version): running})

    async def remove_version(self, name: str, version: int) -> None:
        """Stop one version that no longer answers by default."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            versions = dict(self.live.get(name, {}))
            running = versions.pop(str(version), None)
            if running is None:
                return
            assert versions.get("") is not running, "the version that answers cannot be removed"
            self.homes.note(name, (running,))
            self._switch(name, versions)
            going = self.departures.begin(name, running, self._states[name][version])
        # Its sequences may take long to end, and other changes do not wait for them.
        await going

    def refresh(self, name: str) -> None:
        """Let the version answer that the selection names: one assignment, no request is lost."""
        if name in self.live:
            self._switch(name, dict(self.live[name]))

    def _switch(self, name: str, versions: dict[str, Running]) -> None:
        if any(versions):
            versions[""] = self.selection.default(name, versions)
            self.note_homes(name)
            self.live[name] = versions
            self._changed(name)

    def _changed(self, name: str, *, counts: bool = True) -> None:
        """Other versions answer than before; what is no model is not counted."""
        if counts:
            self.changes[name] += 1
        self.on_change(name)

    def note_homes(self, name: str) -> None:
        """Others may answer than before: open sequences go on where they are."""
        there = self.live.get(name, {})
        self.homes.note(name, [each for version, each in there.items() if version])

    async def unload(self, name: str) -> None:
        """Stop a model: no new requests, those in flight are answered, then it goes."""
        await asyncio.gather(*await self.dismiss(name))

    async def dismiss(self, name: str) -> Sequence[asyncio.Task[None]]:
        """Begin to stop a model: it takes no new requests. The tasks end when it has gone."""
        self.abandon(name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            self._failed.pop(name, None)
            self._seen.pop(name, None)
            self._given.discard(name)
            running = self.live.pop(name, {})
            self.homes.shut(name)
            self._changed(name, counts=bool(running))
            states = self._states.get(name, {})
            # Who loads the model again need not wait until all requests to it have ended.
            return [
                self.departures.begin_now(each, states[int(version)])
                for version, each in running.items()
                if version
            ]

    def copying(self, name: str) -> dict[int, str]:
        """The versions of a model that somebody is copying into its folder now, and why so."""
        try:
            folder = self._shelves.folder_of(name)
        except InvalidModel:
            return {}  # in several repositories, which loading tells
        return {} if folder is None else copies(folder, time.time(), self._settle_s)

    async def settled(self, names: Sequence[str]) -> bool:
        """Look whether copies into these models are under way; `index` tells which."""
        found = await asyncio.to_thread(lambda: {name: self.copying(name) for name in names})
        self._copying = {name: versions for name, versions in found.items() if versions}
        return not self._copying

    async def poll(self) -> bool:
        """Load what is new or changed on disk, unload what is gone.

        False: a copy into the repository is under way, and is worth another look soon.
        """
        there = await asyncio.to_thread(self._shelves.fingerprints)
        for name in [name for name in self._seen if name not in there]:
            self._leaving.begin(name, partial(self._leave, name))
        await self._leaving.wait(self.look_s)
        changed = [name for name, seen in there.items() if self._seen.get(name) != seen]
        settled = await self.settled(changed)
        for name in changed:
            if name not in self._copying:
                self._coming.begin(name, partial(self._come, name, there[name]))
        await self._coming.wait(self.look_s)
        return settled

    async def _leave(self, name: str) -> None:
        _log.info("model %s is gone from disk", name)
        await self.unload(name)
        if name not in self._seen:  # nor has it come back meanwhile
            self._states.pop(name, None)

    async def _come(self, name: str, seen: object) -> None:
        await self.load_all([name])
        if name in self._failed:
            # What cannot be loaded is told once, and tried again when something changes.
            self._seen[name] = seen

    async def close(self) -> None:
        """Unload everything."""
        self.abandon("")
        await self._coming.cancel()
        ending = [asyncio.ensure_future(self.unload(name)) for name in list(self.live)]
        ending += self.departures.under_way()
        if ending:
            # What takes longer, such as a compiler, ends with the process.
            await asyncio.wait(ending, timeout=_CLOSE_S)
        await self._leaving.wait(_CLOSE_S)

    async def drain(self, timeout_s: float | None) -> bool:
        """Wait until no request is in flight, refusing new ones; false when time ran out."""
        self.homes.shut()
        running = [each for versions in self.live.values() for key, each in versions.items() if key]
        return all(await asyncio.gather(*(each.drain(timeout_s) for each in running)))

    # ---- steps
    def _folder_of(self, name: str) -> Path | None:
        try:
            return self._shelves.folder_of(name)
        except InvalidModel as error:
            self._failed[name] = str(error)
            raise

    async def _load_versions(
        self, name: str, folder: Path, config: ModelConfig, versions: Sequence[int]
    ) -> None:
        self._failed.pop(name, None)
        states = self._states.setdefault(name, {})
        old = self.live.get(name, {})
        results = await asyncio.gather(
            *(self._load_version(folder, config, v, states) for v in versions)
        )
        new = {str(v): one for v, one in zip(versions, results, strict=True) if one is not None}
        for version in versions:
            # A reload that failed keeps the version that runs.
            if str(version) not in new and str(version) in old:
                new[str(version)] = old[str(version)]
        if None in results:
            # A version that does not load takes nobody's place: what it would replace stays.
            withdrawn = await asyncio.to_thread(lambda: ledger.read(folder).withdrawn)
            stay = {v: each for v, each in old.items() if v and int(v) not in withdrawn}
            new = stay | new
            for version, one in zip(versions, results, strict=True):
                # The model answers: that is told in the index, and no reason to send clients away.
                states[version].beside = bool(stay) and one is None
        if new:
            new[""] = self.selection.default(name, new)
            self.note_homes(name)
            self.live[name] = new
        else:
            self.live.pop(name, None)
        self._changed(name)
        self._retire_replaced(name, old, new, states)
        failed = [states[v] for v, one in zip(versions, results, strict=True) if one is None]
        if failed:
            causes = "; ".join(f"version {entry.version}: {entry.reason}" for entry in failed)
            raise InvalidModel(f"load failed for model '{name}': {causes}")

    async def _load_version(
        self, folder: Path, config: ModelConfig, version: int, states: dict[int, VersionState]
    ) -> Running | None:
        entry = _entry(states, version)
        was_ready = entry.state is State.READY
        entry.enter(State.LOADING)
        try:
            await asyncio.to_thread(_require_whole, folder / str(version))
            running = await self._launch(folder, config, version)
        except Exception as error:  # noqa: BLE001 - see below
            # Whatever goes wrong costs this model; only a bug of ours is worth a traceback.
            bug = None if isinstance(error, TuiliError) else error
            _log.error("model %s version %d: %s", config.name, version, error, exc_info=bug)
            entry.enter(State.UNAVAILABLE, str(error))
            if was_ready:
                entry.enter(State.LOADING)
                entry.enter(State.READY, f"reload failed, the former one still serves: {error}")
            return None
        entry.enter(State.READY)
        _log.info("model %s version %d is ready", config.name, version)
        return running

    def _retire_replaced(
        self,
        name: str,
        old: dict[str, Running],
        new: dict[str, Running],
        states: dict[int, VersionState],
    ) -> None:
        for version, running in old.items():
            if not version or new.get(version) is running:
                continue
            entry = None if version in new else states[int(version)]
            self.departures.begin(name, running, entry)


def _entry(states: dict[int, VersionState], version: int) -> VersionState:
    """The state of a version; a new one while what it tells of is on its way out."""
    there = states.get(version)
    if there is None or there.state is State.UNLOADING:
        there = states[version] = VersionState(version)
    return there


def _nobody(_name: str) -> None:
    """Nobody wants to know."""


def _require_whole(version: Path) -> None:
    """Half a version is no version, whoever asks for it."""
    require_files(version)
    if why := being_written(version, time.time()):
        raise InvalidModel(f"{version} is not whole yet: {why}; load it when the copy is done")
