"""Reconciler: makes this server's models be what the journal says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from tuili.errors import TuiliError
from tuili.server.control.split import Live, Split
from tuili.server.repository.lifecycle import Repository
from tuili.server.rollout.history import Rollout, World
from tuili.server.rollout.states import LOADED, ROUTED

_log = logging.getLogger("tuili.server")
Front = Live | Split


class Reconciler:
    """Loads candidates, puts splits before models, moves pointers, lets old versions go."""

    def __init__(self, repository: Repository[Front]) -> None:
        self.splits: dict[str, Split] = {}
        # Why a wanted version does not load, by (model, version).
        self.failures: dict[tuple[str, int], str] = {}
        self._repository = repository
        self._loading: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._removing: set[asyncio.Task[None]] = set()
        # The version before the present one, kept warm until a moment.
        self._retained: dict[str, tuple[int, float]] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def select(self, world: World, now: float) -> None:
        """Tell the repository which versions are wanted; nothing is loaded yet."""
        selection = self._repository.selection
        for name, model in world.models.items():
            old = selection.pointers.get(name)
            if model.pointer is not None:
                if old is not None and old != model.pointer:
                    window = _window(world, name)
                    self._retained[name] = (old, now + window)
                selection.pointers[name] = model.pointer
            wanted = set(model.labels.values())
            if self._labels.get(name) != model.labels:
                # Sequences of a label go on in the version that it was at.
                self._labels[name] = dict(model.labels)
                self._repository.note_homes(name)
            active = world.active(name)
            if active is not None and active.state in LOADED:
                wanted |= set(active.candidates().values())
            retained = self._retained.get(name)
            if retained is not None and now < retained[1]:
                wanted.add(retained[0])
            selection.beside[name] = frozenset(wanted)

    def apply(self, world: World, now: float) -> None:
        """One pass; what takes long goes on in tasks."""
        self.select(world, now)
        for name in world.models:
            if name not in self._repository.live:
                continue
            self._load_wanted(name)
            self._route(world, name)
            self._remove_unwanted(name)

    def loaded(self, rollout: Rollout) -> bool:
        """Whether all of a roll-out's variants are live here."""
        versions = self._repository.live.get(rollout.plan.model, {})
        wanted = {rollout.stable, *rollout.candidates().values()}
        return all(str(version) in versions for version in wanted)

    def failure(self, rollout: Rollout) -> str:
        """Why a candidate does not load here, or ""."""
        for name, version in rollout.candidates().items():
            found = self.failures.get((rollout.plan.model, version))
            if found:
                return f"{name}: {found}"
        return ""

    async def settle(self) -> None:
        """Wait for loads under way."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    # ---- steps
    def _load_wanted(self, name: str) -> None:
        selection, live = self._repository.selection, self._repository.live[name]
        wanted = set(selection.beside.get(name, ()))
        pointer = selection.pointers.get(name)
        if pointer is not None:
            wanted.add(pointer)
        for key in [k for k in self.failures if k[0] == name and k[1] not in wanted]:
            del self.failures[key]
        for version in wanted:
            key = (name, version)
            if str(version) in live or key in self._loading or key in self.failures:
                continue
            task = asyncio.ensure_future(self._load(name, version))
            self._loading[key] = task
            task.add_done_callback(lambda _, key=key: self._loading.pop(key, None))

    async def _load(self, name: str, version: int) -> None:
        try:
            await self._repository.add_version(name, version)
        except TuiliError as error:
            self.failures[name, version] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is costs this version only
            _log.exception("version %d of %s", version, name)
            self.failures[name, version] = f"{type(error).__name__}: {error}"

    def _route(self, world: World, name: str) -> None:
        """Put a split in front, renew it for a new step, or take it away."""
        selection = self._repository.selection
        active = world.active(name)
        routed = active is not None and active.state in ROUTED and self.loaded(active)
        split = self.splits.get(name)
        if split is not None and (not routed or split.rollout is not active):
            split.stop()
            del self.splits[name]
            selection.fronts.pop(name, None)
            split = None
        if active is not None and routed and split is None:
            split = Split(active, lambda: _plain(self._repository.live.get(name, {})))
            self.splits[name] = split
            selection.fronts[name] = split
        elif split is not None:
            split.follow()
        live = self._repository.live[name]
        if live.get("") is not selection.default(name, live):
            self._repository.refresh(name)

    def _remove_unwanted(self, name: str) -> None:
        selection, live = self._repository.selection, self._repository.live[name]
        split = self.splits.get(name)
        numbers = [int(version) for version in live if version]
        for version in numbers:
            busy = live[str(version)] is live[""] or split is not None
            if not busy and not selection.keeps(name, version, numbers):
                task = asyncio.ensure_future(self._repository.remove_version(name, version))
                self._removing.add(task)
                task.add_done_callback(self._removing.discard)


def _plain(versions: Mapping[str, Front]) -> dict[str, Live]:
    """The numbered versions, without what stands in front of them."""
    return {v: each for v, each in versions.items() if v and not isinstance(each, Split)}


def _window(world: World, model: str) -> float:
    """How long the last roll-out of a model wants the former version to be kept."""
    windows = [r.plan.rollback_window_s for r in world.rollouts.values() if r.plan.model == model]
    return windows[-1] if windows else 600.0
