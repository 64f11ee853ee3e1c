"""Publishing behind a URL: in stores that can create a file, but neither rename nor lock one.

The record comes first, by a write that fails if it exists: it takes the number, and as it lists
every file, no reader takes the version for whole before the last of them is there. A publisher
that dies leaves a number that stays incomplete and is never served. Decisions are files of their
own that are created the same way, so of two people one looks again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from tuili.errors import NotFound, Unavailable, nearest
from tuili.server.publishing import publish as publishing
from tuili.server.publishing.publish import Draft
from tuili.server.registry import ledger, record, signing
from tuili.server.registry.ledger import ENTRIES, LEDGER, Event, Ledger
from tuili.server.registry.record import RECORD, SEAL, Record
from tuili.server.remote.store import Listed, Store
from tuili.server.repository.layout import check_name, version_folders

Found = TypeVar("Found")
OnBytes = Callable[[int], None]
_READERS: Final = 8
_MOST_TRIES: Final = 100


def publish(
    store: Store,
    model: str,
    draft: Draft,
    *,
    version: int | None = None,
    allow_signature_change: bool = False,
    key: Path | None = None,
    on_bytes: OnBytes = lambda size: None,
) -> Record:
    """As `publish.publish`, behind a URL. Raises Unavailable when the store cannot be written."""
    check_name(model)
    if key is not None:
        signing.check_available()
    with tempfile.TemporaryDirectory(prefix="tuili-publish-") as scratch:
        content = Path(scratch) / "version"
        publishing.copy(draft.files, content)
        made = _taken(store, model, draft, content, version, allow_signature_change)
        try:
            _fill(store, made, content, key, on_bytes)
        except Unavailable as error:
            raise Unavailable(
                f"version {made.version} of {model!r} stays incomplete in {store.url}, and is "
                f"served by nobody: {error}. Publish again: it takes the next number"
            ) from error
    by = made.provenance
    event = Event(by.at, by.user, "publish", made.version, why=made.notes)
    decide(store, model, lambda folder: ledger.append(folder, event))
    return made


def _fill(store: Store, made: Record, content: Path, key: Path | None, on_bytes: OnBytes) -> None:
    """All that belongs to a version whose number is taken."""
    place = f"{made.model}/{made.version}"
    if key is not None:
        # Before the files: a version without its signature is not whole either.
        store.create(f"{place}/{SEAL}", signing.sign(record.encode(made), key))
    for name, path in record.files_of(content).items():
        store.upload(f"{place}/{name}", path, on_bytes)


def decide(store: Store, model: str, decision: Callable[[Path], Found]) -> Found:
    """What `decision` says of a model's folder; what it adds to the ledger is written.

    It sees records, ledger and files of the right size with nothing in them, and is asked again
    when somebody else decided meanwhile. Raises NotFound for an unknown model.
    """
    check_name(model)
    for _ in range(_MOST_TRIES):
        with outline(store, model) as (folder, entries):
            if not any(folder.iterdir()):
                known = sorted({name.partition("/")[0] for name in store.listing()})
                raise NotFound(f"no model {model!r} in {store.url}.{nearest(model, known)}")
            known_events = len(ledger.read(folder).events)
            found = decision(folder)
            fresh = ledger.read(folder).events[known_events:]
        text = ledger.encode(Ledger(events=fresh))
        if not fresh or store.create(f"{model}/{ENTRIES}{entries + 1:06}.json", text):
            return found
    raise _busy(store, model)


@contextmanager
def outline(store: Store, model: str) -> Generator[tuple[Path, int]]:
    """A model's folder as the store has it, without the content, and its last entry's number."""
    files = store.listing(model)
    wanted = [name for name in files if _is_read(name)]
    with ThreadPoolExecutor(_READERS) as pool:
        sizes = [files[name].size for name in wanted]
        texts = dict(zip(wanted, pool.map(_read(store, model), wanted, sizes), strict=True))
    with tempfile.TemporaryDirectory(prefix="tuili-outline-") as scratch:
        folder = Path(scratch) / model
        folder.mkdir()
        for name, listed in files.items():
            _stand_in(folder / name, listed, texts.get(name))
        entries = sorted(name for name in texts if name.startswith(ENTRIES))
        decided = [name for name in (LEDGER, *entries) if name in texts]
        if decided:
            parts = (ledger.decode(texts[each], f"{store.url}/{model}/{each}") for each in decided)
            (folder / LEDGER).write_bytes(ledger.encode(ledger.joined(parts)))
        yield folder, max((_number(name) for name in entries), default=0)


def _taken(
    store: Store,
    model: str,
    draft: Draft,
    content: Path,
    version: int | None,
    allow_signature_change: bool,
) -> Record:
    """The record, once it has taken its number in the store."""
    for _ in range(_MOST_TRIES):
        with outline(store, model) as (folder, _):
            if version is not None and version in version_folders(folder):
                raise publishing.already_there(model, version, store.url)
            made = publishing.drawn_up(folder, draft, content, version, allow_signature_change)
        if store.create(f"{model}/{made.version}/{RECORD}", record.encode(made)):
            return made
    raise _busy(store, model)


def _is_read(name: str) -> bool:
    return name == LEDGER or name.startswith(ENTRIES) or name.partition("/")[2] == RECORD


def _read(store: Store, model: str) -> Callable[[str, int], bytes]:
    return lambda name, size: store.read(f"{model}/{name}", 0, size)


def _stand_in(path: Path, listed: Listed, text: bytes | None) -> None:
    """A file with this content, or as large, which takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_bytes(text)
        return
    path.touch()
    os.truncate(path, listed.size)


def _number(name: str) -> int:
    digits = name.removeprefix(ENTRIES).removesuffix(".json")
    return int(digits) if digits.isdecimal() else 0


def _busy(store: Store, model: str) -> Unavailable:
    return Unavailable(
        f"{store.url}/{model}: others were quicker {_MOST_TRIES} times; does the store keep what "
        "is written there?"
    )
