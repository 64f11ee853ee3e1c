"""Conductor: one per server; follows the journal, reports what it sees, and decides if it leads.

Once a second: read what is new in the journal, make this server agree with it, publish this
server's numbers, and, as the leader, judge the pooled numbers and write what follows into the
journal. An action is taken when its entry is in the journal, never before; so wherever a server
dies, the entries say what is true. The one exception is safety: a guard that trips takes the
candidate's traffic away at once, journal or not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from tuili.errors import TuiliError
from tuili.server.control import webhooks
from tuili.server.control.digests import digest_of
from tuili.server.control.leadership import Leadership
from tuili.server.control.opening import open_store
from tuili.server.control.pool import Pool, body_of, failure_body, topic_of
from tuili.server.control.reconciler import Front, Reconciler
from tuili.server.control.split import Split
from tuili.server.control.store import Store
from tuili.server.repository.layout import find_model
from tuili.server.repository.lifecycle import Repository
from tuili.server.rollout.controller import Do, next_event, verdicts
from tuili.server.rollout.guards import tripped
from tuili.server.rollout.history import Entry, Rollout, World
from tuili.server.rollout.metrics import Pair
from tuili.server.rollout.plan import STABLE, Hook
from tuili.server.rollout.states import JUDGED, State
from tuili.server.rollout.verdict import Verdict

Json = dict[str, Any]
_log = logging.getLogger("tuili.server")
_ASK_AGAIN_S: Final = 5.0
_MOST_IN_A_ROW: Final = 8
_UNREADABLE: Final = (
    "journal %s: %s. It is left out: the version that answered goes on, and so do other roll-outs. "
    "Was it written by a newer tuili, or the file damaged? What it began can only be aborted"
)
# The moment before which a webhook is asked, by event.
_GATES: Final[dict[str, Hook]] = {
    "started": "before_start",
    "step": "before_step",
    "promoting": "before_promote",
}


class Conductor:
    """The roll-outs of one server."""

    def __init__(
        self,
        repository: Repository[Front],
        folders: tuple[Path, ...],
        state: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.world = World()
        self.server = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self.repository = repository
        self.reconciler = Reconciler(repository)
        self.verdicts: dict[str, dict[str, Verdict]] = {}
        # Why the journal cannot be read or written now, or "".
        self.trouble = ""
        self.events: dict[tuple[str, str], int] = {}
        self.folders = folders
        self._state = state or str(folders[0] / ".tuili" / "journal.db")
        self._clock = clock
        self._store: Store | None = None
        self._leadership = Leadership(self.server)
        self._pools: dict[str, Pool] = {}
        self._waits: dict[str, tuple[float, str]] = {}
        self._published: dict[str, str] = {}
        self._digests: WeakKeyDictionary[Front, str] = WeakKeyDictionary()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life
    async def start(self) -> None:
        """Read the journal, if there is one, before any model is loaded."""
        if self._has_journal():
            await self.read_new()
            self.reconciler.select(self.world, self._clock())

    async def run(self, every_s: float = 1.0) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.tick()

    async def tick(self, *, read: bool = True) -> None:
        """One turn; trouble with the journal is told, and tried again.

        `read=False`: the journal was read a moment ago, as `append` does.
        """
        for split in self.reconciler.splits.values():
            split.second_ended()
            self._protect(split)
        if not self._has_journal():
            return
        try:
            async with self._turn:
                await self._turn_once(read)
        except TuiliError as error:
            if str(error) != self.trouble:
                _log.error("roll-outs: %s", error)
            self.trouble = str(error)
        except Exception:  # noqa: BLE001 - a bug of ours must not end all roll-outs
            _log.exception("roll-outs: this turn failed")
        else:
            self.trouble = ""

    def _has_journal(self) -> bool:
        """Whether anything was ever decided here; a server without roll-outs makes no file."""
        return self._store is not None or "://" in self._state or Path(self._state).exists()

    async def close(self) -> None:
        """Release the database."""
        for task in self._tasks:
            task.cancel()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)

    # ---- the journal
    async def store(self) -> Store:
        """The database, opened when it is first needed."""
        if self._store is None:
            self._store = await asyncio.to_thread(open_store, self._state)
        return self._store

    async def read_new(self) -> None:
        """Take in what the journal has that is not known here."""
        store = await self.store()
        self._take_in(await asyncio.to_thread(store.read, self.world.seq))

    def _take_in(self, entries: Iterable[Entry]) -> None:
        known = len(self.world.unreadable)
        for entry in entries:
            if entry.seq <= self.world.seq:
                continue  # somebody else here read it meanwhile
            self.world.apply(entry)
            key = (entry.model, entry.event)
            self.events[key] = self.events.get(key, 0) + 1
            if entry.server and entry.server != self.server:
                _log.info("roll-outs: %s %s by %s", entry.model, entry.event, entry.server)
        for told in self.world.unreadable[known:]:
            _log.error(_UNREADABLE, self._state, told)

    async def append(self, entry: Entry, epoch: int | None = None) -> Entry:
        """Write an entry that is based on all that is known here, and take it in."""
        self.world.check(entry)
        store = await self.store()
        entry = replace(entry, server=self.server, at=time.time())
        after = self.world.model(entry.model).last_seq
        # One turn of a thread for both: each costs the requests beside it.
        written, entries = await asyncio.to_thread(
            lambda: (store.append(entry, after, epoch), store.read(self.world.seq))
        )
        _log.info("%s: %s %s: %s", written.model, written.rollout, written.event, written.why)
        self._take_in(entries)
        if entry.rollout and entry.rollout in self.world.rollouts:
            hooks = self.world.rollouts[entry.rollout].plan.webhooks
            if any(hook.when == "event" for hook in hooks):
                self._beside(webhooks.tell(hooks, written.json()))
        return written

    async def version_digest(self, model: str, version: int) -> str:
        """The digest of a version's files, read once for as long as it stays loaded."""
        live = self.repository.live.get(model, {}).get(str(version))
        known = self._digests.get(live) if live is not None else None
        if known:
            return known
        folder = find_model(self.folders, model)
        if folder is None:
            return ""
        digest = await asyncio.to_thread(digest_of, folder / str(version))
        if live is not None:
            self._digests[live] = digest
        return digest

    # ---- a turn
    async def _turn_once(self, read: bool) -> None:
        if read:
            await self.read_new()
        now = self._clock()
        self.reconciler.apply(self.world, now)
        active = [rollout for rollout in self.world.rollouts.values() if not rollout.over]
        if not active:
            return
        await self._publish(active)
        store = await self.store()
        epoch = await asyncio.to_thread(self._leadership.epoch, store, now)
        if epoch is None:
            return
        failures: list[TuiliError] = []
        for rollout in active:
            try:
                await self._advance_far(rollout, epoch)
            except TuiliError as error:
                failures.append(error)  # it costs no other roll-out its turn
        if failures:
            raise failures[0]

    async def _advance_far(self, rollout: Rollout, epoch: int) -> None:
        for _ in range(_MOST_IN_A_ROW):
            if not await self._advance(rollout, epoch):
                break
            self.reconciler.apply(self.world, self._clock())

    async def _publish(self, active: list[Rollout]) -> None:
        store = await self.store()
        for rollout in active:
            split = self.reconciler.splits.get(rollout.plan.model)
            failure = self.reconciler.failure(rollout)
            if split is not None:
                body = body_of(split)
            elif failure:
                body = failure_body(rollout, failure.partition(":")[0], failure)
            else:
                continue
            topic = topic_of(rollout)
            await asyncio.to_thread(store.put_tally, self.server, topic, body)
            if self._published.get(rollout.name) != topic:
                self._published[rollout.name] = topic
                topics = [topic_of(each) for each in active]
                await asyncio.to_thread(store.forget_tallies, self.server, topics)

    async def _advance(self, rollout: Rollout, epoch: int) -> bool:
        """Decide one thing about a roll-out; whether something was written."""
        do = await self._next(rollout)
        if do is None:
            return False
        gate = _GATES.get(do.event)
        if gate is not None and not await self._agreed(rollout, do, gate):
            return False
        digest = ""
        if do.event in ("loaded", "pointer"):
            version = int(do.numbers["version"])
            digest = await self.version_digest(rollout.plan.model, version)
        await self.append(
            Entry(
                rollout.plan.model, do.event, f"tuili ({self.server})", do.why, rollout.name,
                do.numbers, digest,
            ),
            epoch,
        )  # fmt: skip
        return True

    async def _next(self, rollout: Rollout) -> Do | None:
        state = rollout.state
        if state is State.SCHEDULED:
            start_at = rollout.plan.start_at
            if start_at is not None and time.time() < start_at:
                return None
            return Do("started", "its time has come" if start_at else "asked for", {})
        if state is State.LOADING:
            return self._loaded(rollout)
        if state is State.PROMOTING:
            version = rollout.plan.candidates[rollout.winner]
            if str(version) not in self.repository.live.get(rollout.plan.model, {}):
                return None
            why = f"{rollout.winner} (version {version}) is promoted: {rollout.why}"
            return Do("pointer", why, {"version": version, "before": rollout.stable})
        if state is State.ROLLING_BACK:
            return Do("rolled_back", rollout.why, {"version": rollout.stable})
        return await self._judged(rollout)

    def _loaded(self, rollout: Rollout) -> Do | None:
        failure = self.reconciler.failure(rollout)
        if failure:
            return Do("rolled_back", f"it does not load: {failure}", {})
        if rollout.plan.model not in self.repository.live:
            return None
        if not self.reconciler.loaded(rollout):
            return None
        versions = self.repository.live[rollout.plan.model]
        stable = versions[str(rollout.stable)]
        for name, version in rollout.candidates().items():
            differs = signature_gap(stable, versions[str(version)])
            if differs and not rollout.plan.allow_signature_change:
                text = f"{name} has another signature: {differs}; allow_signature_change lets it in"
                return Do("rolled_back", text, {})
        numbers = {"version": next(iter(rollout.candidates().values()))}
        return Do("loaded", "all variants are loaded and warm", numbers)

    async def _judged(self, rollout: Rollout) -> Do | None:
        split = self.reconciler.splits.get(rollout.plan.model)
        if split is None:
            failure = self.reconciler.failure(rollout)
            return Do("rolling_back", f"it does not load: {failure}", {}) if failure else None
        now = self._clock()
        pool = self._pools.get(rollout.name)
        if pool is None or pool.round != rollout.round:
            pool = self._pools[rollout.name] = Pool(rollout, now)
        store = await self.store()
        bodies = await asyncio.to_thread(store.tallies, topic_of(rollout))
        seen = pool.seen(rollout, split, bodies, self.server, now)
        found = await asyncio.to_thread(verdicts, rollout, seen)
        self.verdicts[rollout.name] = found
        return next_event(rollout, found, seen)

    async def _agreed(self, rollout: Rollout, do: Do, gate: Hook) -> bool:
        """Ask the webhooks of a moment; a refusal is asked about again after a while."""
        if not any(hook.when == gate for hook in rollout.plan.webhooks):
            return True
        now = self._clock()
        if now < self._waits.get(rollout.name, (0.0, ""))[0]:
            return False
        body = rollout.json() | {"next": do.event, "why": do.why, "numbers": do.numbers}
        hooks = rollout.plan.webhooks
        why = await webhooks.refusal(hooks, gate, body)
        self._waits[rollout.name] = (now + _ASK_AGAIN_S if why else 0.0, why)
        return not why

    def waits_for(self, rollout: str) -> str:
        """Which webhook a roll-out waits for, or ""."""
        return self._waits.get(rollout, (0.0, ""))[1]

    def is_leader(self) -> bool:
        """Whether this server decides."""
        return self._leadership.mine

    def _protect(self, split: Split) -> None:
        """Take traffic away from a candidate whose guard trips here, before anything is written."""
        rollout = split.rollout
        if rollout.state not in JUDGED:
            return
        for name in rollout.candidates():
            pair = Pair(split.tallies[STABLE], split.tallies[name])
            why = tripped(rollout.plan.guards, pair)
            if why:
                _log.warning("%s: %s gets no more traffic here: %s", rollout.name, name, why)
                split.router.deal({k: v for k, v in split.router.weights.items() if k != name})

    def _beside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def signature_gap(stable: Front, candidate: Front) -> str:
    """What a client would notice of another signature, or ""."""
    for kind in ("inputs", "outputs"):
        a, b = (getattr(each.signature, kind) for each in (stable, candidate))
        if a.keys() != b.keys():
            return f"{kind} {sorted(b)} instead of {sorted(a)}"
        for name in a:
            mine, other = ((r.datatype, tuple(r.dims)) for r in (a[name], b[name]))
            if mine != other:
                return f"{name} is {other[0]}{list(other[1])} instead of {mine[0]}{list(mine[1])}"
    sizes = (stable.signature.max_batch_size, candidate.signature.max_batch_size)
    if sizes[1] < sizes[0]:
        return f"max_batch_size {sizes[1]} instead of {sizes[0]}"
    return ""
