"""Mirror: a remote repository as a local one, which is what the server then reads.

Theory of operation
- The listing tells what there is. Files come into the cache by content (`blobs`), so versions and
  repositories share them, and what did not change is not fetched.
- A version appears in the tree by one rename, when all of its files are there and, for a
  published one, have the checksums of its record. Until then the former state stays.
- What fails costs one model. When the repository itself cannot be reached, the tree is as it was:
  a server goes on, and even starts, with what it has.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from tuili.errors import InvalidArtifact, TuiliError, Unavailable
from tuili.server.registry import ledger, record
from tuili.server.registry.ledger import ENTRIES, LEDGER, replace
from tuili.server.registry.record import RECORD, Record
from tuili.server.remote.blobs import PART_BYTES, Blobs
from tuili.server.remote.store import Listed, Store
from tuili.server.repository import recordings
from tuili.server.scratch import scratch

_log = logging.getLogger("tuili.server")

Names = Mapping[str, Listed]
# Bytes that came, bytes that are to come in all.
OnProgress = Callable[[int, int], None]
_KNOWN: Final = "known.json"
_TREE: Final = "tree"
_STAGING: Final = ".staging-"


def mirror_folder(cache: Path, url: str) -> Path:
    """Where the models of a remote repository are, once they are here."""
    key = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return cache / "remote" / key / _TREE


class Mirror:
    """One remote repository and its copy."""

    def __init__(
        self, url: str, cache: Path, options: Mapping[str, Any] | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:  # fmt: skip
        self.url = url
        self.folder = mirror_folder(cache, url)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._store: Store | None = None
        self._blobs = Blobs(cache / "remote" / "blobs", part_bytes)
        self._known_file = self.folder.parent / _KNOWN
        self._known = _read_known(self._known_file)
        self._sink: OnProgress | None = None
        self._came = self._wanted = 0

    def refresh(
        self, models: Collection[str] | None = None, on_progress: OnProgress | None = None
    ) -> dict[str, str]:
        """Bring the copy up to date, these models only if some are named; what failed, by model.

        The key "" stands for the repository as a whole. Raises Unavailable only when it cannot be
        reached and nothing of it is here.
        """
        try:
            listing = self._listing()
        except TuiliError as error:
            if not self._here():
                raise
            _log.warning("%s; going on with what is in %s", error, self.folder)
            return {"": str(error)}
        there = _by_model(listing)
        wanted = [name for name in there if models is None or name in models]
        self._sink, self._came = on_progress, 0
        self._wanted = sum(
            file.size for name in wanted for path, file in there[name].items()
            if not self._checksum(f"{name}/{path}", file)
        )  # fmt: skip
        failed: dict[str, str] = {}
        for name in wanted:
            try:
                self._model(name, there[name])
            except TuiliError as error:
                _log.error("model %s: %s", name, error)
                failed[name] = str(error)
        for gone in self._here() - set(there):
            _remove(self.folder / gone)
        self._remember(listing)
        return failed

    def _here(self) -> set[str]:
        """The models in the tree; what is hidden there (a journal) is not ours."""
        return {each.name for each in self.folder.iterdir() if not each.name.startswith(".")}

    def names(self) -> list[str]:
        """The models that the repository has; raises Unavailable."""
        return sorted(_by_model(self._listing()))

    def _listing(self) -> dict[str, Listed]:
        if self._store is None:
            self._store = Store(self.url, self._options)
        found = self._store.listing()
        if not found:
            # Stores of objects have no empty folders: nothing is as likely a slip as a decision.
            raise Unavailable(f"repository {self.url} is empty or gone")
        return found

    # ---- one model
    def _model(self, name: str, files: Names) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        versions = _by_version(files)
        for version, inside in versions.items():
            if (content := self._version(name, version, inside)) is not None:
                self._place(folder, version, content)
        beside = {path for path in files if path.partition("/")[0] not in versions}
        decided = {path for path in beside if path == LEDGER or path.startswith(ENTRIES)}
        self._place_ledger(name, {path: files[path] for path in decided})
        beside -= decided
        for path in sorted(beside):
            self._place_file(folder, path, self._fetch(f"{name}/{path}", files[path]))
        kept = {
            *versions,
            *([LEDGER] if decided else ()),
            recordings.FOLDER,  # what this server recorded, too
            *(path.partition("/")[0] for path in beside),
        }
        for each in [each for each in folder.iterdir() if each.name not in kept]:
            _remove(each)

    def _place_ledger(self, name: str, files: Names) -> None:
        """What was decided, one file per decision there, as the one file that it is here."""
        if not files:
            return
        places = [self._blobs.path(self._fetch(f"{name}/{path}", files[path])) for path in
                  sorted(files, key=lambda path: (path != LEDGER, path))]  # fmt: skip
        where = f"{self.url}/{name}/{LEDGER}"
        parts = [ledger.decode(place.read_bytes(), where) for place in places]
        content, target = ledger.encode(ledger.joined(parts)), self.folder / name / LEDGER
        if not target.exists() or target.read_bytes() != content:
            replace(target, content)

    def _version(self, name: str, version: str, files: Names) -> dict[str, str] | None:
        """Checksums by file, all of them fetched; None while the version is incomplete."""
        place = f"{name}/{version}"
        about: Record | None = None
        if RECORD in files:
            sha256 = self._fetch(f"{place}/{RECORD}", files[RECORD])
            about = record.decode(self._blobs.path(sha256).read_bytes(), f"{self.url}/{place}")
            for path, entry in about.files.items():
                size = files[path].size if path in files else -1
                if size != entry.bytes:
                    _log.info("%s/%s is incomplete: %s is not there yet", self.url, place, path)
                    return None
        expected = {} if about is None else {k: v.sha256 for k, v in about.files.items()}
        return {
            path: self._fetch(f"{place}/{path}", listed, expected.get(path, ""))
            for path, listed in files.items()
        }

    def _fetch(self, name: str, listed: Listed, expected: str = "") -> str:
        known = self._checksum(name, listed)
        if known and expected and known != expected:
            raise InvalidArtifact(
                f"{self.url}/{name} is damaged: its sha256 is {known}, the record says {expected}"
            )
        assert self._store is not None
        sha256 = known or self._blobs.fetch(self._store, name, listed, expected, self._arrived)
        self._known[name] = (listed.size, listed.tag, sha256)
        return sha256

    def _checksum(self, name: str, listed: Listed) -> str:
        """The checksum of a remote file that is here already, or ""."""
        size, tag, sha256 = self._known.get(name, (-1, "", ""))
        same = (size, tag) == listed and bool(tag)
        return sha256 if same and self._blobs.path(sha256).exists() else ""

    def _arrived(self, size: int) -> None:
        self._came += size
        if self._sink is not None:
            self._sink(self._came, max(self._wanted, self._came))

    # ---- the tree
    def _place(self, folder: Path, version: str, content: Mapping[str, str]) -> None:
        target = folder / version
        if _same(target, content, self._blobs):
            return
        with scratch(self.folder.parent, _STAGING) as staging:
            fresh = staging / version
            for path, sha256 in content.items():
                (fresh / path).parent.mkdir(parents=True, exist_ok=True)
                _link(self._blobs.path(sha256), fresh / path)
            if target.exists():
                target.rename(staging / "former")
            fresh.rename(target)

    def _place_file(self, folder: Path, path: str, sha256: str) -> None:
        source, target = self._blobs.path(sha256), folder / path
        if target.exists() and target.samefile(source):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.unlink(missing_ok=True)
        _link(source, fresh)
        fresh.replace(target)

    def _remember(self, listing: Names) -> None:
        self._known = {name: known for name, known in self._known.items() if name in listing}
        try:
            replace(self._known_file, msgspec.json.encode(self._known))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._known_file, error)


def _read_known(path: Path) -> dict[str, tuple[int, str, str]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[int, str, str]])
    except (OSError, msgspec.MsgspecError):
        return {}


def _by_model(listing: Names) -> dict[str, dict[str, Listed]]:
    found: dict[str, dict[str, Listed]] = {}
    for name, listed in listing.items():
        model, slash, path = name.partition("/")
        if slash:
            found.setdefault(model, {})[path] = listed
    return found


def _by_version(files: Names) -> dict[str, dict[str, Listed]]:
    found: dict[str, dict[str, Listed]] = {}
    for name, listed in files.items():
        version, slash, path = name.partition("/")
        if slash and version.isdecimal():
            found.setdefault(version, {})[path] = listed
    return found


def _same(target: Path, content: Mapping[str, str], blobs: Blobs) -> bool:
    """Whether a version in the tree is made of these very files."""
    there = {
        Path(parent, name).relative_to(target).as_posix()
        for parent, _, names in os.walk(target)
        for name in names
        if not parent.endswith("__pycache__")
    }
    return there == set(content) and all(
        entry.stat().st_size == blobs.path(sha256).stat().st_size
        and entry.stat().st_mtime_ns == blobs.path(sha256).stat().st_mtime_ns
        for entry, sha256 in ((target / name, sha256) for name, sha256 in content.items())
    )


def _link(source: Path, target: Path) -> None:
    """One file in two places, or where the file system has no links, a copy."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
