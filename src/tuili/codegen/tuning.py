"""The tuning record: measured times of candidates, a line of JSON for each problem of a processor.

    {"target":"x86-64-avx2","processor":"...","problem":"Conv ...","ns":{"direct 6x2":81250,...}}

Lines are independent: records are merged by joining them, and of two lines about the same problem
on the same processor the later one counts. What a line says is times, not a verdict, so that a
compilation that may not use the fastest candidate (`--exact`) takes the fastest that it may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tuili.codegen.cache import cache_folder, locked
from tuili.codegen.whole import put
from tuili.errors import InvalidArgument, NotFound, in_words

# Another candidate than the cost model's must be faster by this: clocks are not that exact.
MARGIN = 0.98
_Text = Annotated[str, Meta(min_length=1, max_length=400)]
_Nanoseconds = Annotated[int, Meta(ge=1)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was measured of one problem."""

    target: _Text
    processor: _Text
    problem: _Text
    ns: Annotated[dict[_Text, _Nanoseconds], Meta(min_length=1)]
    by: str = ""  # the program and the compiler that measured; for readers

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes a later line replace this one."""
        return self.target, self.processor, self.problem


@dataclass(frozen=True, slots=True)
class Times:
    """The measured times that count for one target on one processor, by problem and candidate."""

    by_problem: Mapping[str, Mapping[str, int]]

    @property
    def digest(self) -> str:
        """What caches of compiled models depend on; empty without times."""
        if not self.by_problem:
            return ""
        text = msgspec.json.encode(self.by_problem, order="deterministic")
        return hashlib.sha256(text).hexdigest()

    def lacks(self, problem: str, names: Sequence[str]) -> bool:
        """Whether some candidate has no time."""
        return not set(names) <= self.by_problem.get(problem, {}).keys()

    def pick(self, problem: str, names: Sequence[str]) -> tuple[str, str]:
        """The fastest plan that was measured, and why; the cost model's while none was."""
        known = self.by_problem.get(problem, {})
        found = {name: known[name] for name in names if name in known}
        if len(found) < 2:
            return names[0], ""
        first, (best, other, *_) = next(iter(found)), sorted(found, key=found.__getitem__)
        if best != first and found[best] > MARGIN * found[first]:
            best, other = first, best
        return best, f"measured: {_time(found[best])} against {_time(found[other])} of {other}"


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode: Final = msgspec.json.Decoder(Entry).decode


def _time(ns: int) -> str:
    return f"{ns / 1e6:.3f} ms" if ns >= 100_000 else f"{ns / 1e3:.2f} us"


def default_path() -> Path:
    """The user's own record."""
    return cache_folder() / "tuning.jsonl"


def read_times(path: Path | None, target: str, processor: str) -> Times:
    """What a record says about this target and processor; `None` is the user's own record.

    Raises NotFound when a named file is not there, InvalidArgument with file and line for damage.
    """
    if path is not None and not path.exists():
        raise NotFound(f"no tuning record {str(path)!r}; `tuili compile --tune` makes one")
    entries = read_record(path or default_path())
    mine = (entry for entry in entries if (entry.target, entry.processor) == (target, processor))
    return Times({entry.problem: entry.ns for entry in mine})


def read_record(path: Path) -> list[Entry]:
    """All entries of a record, each key once; none where there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidArgument(
            f"the tuning record {str(path)!r} cannot be read: {in_words(error)}; name another with "
            "--tuning, or set TUILI_CACHE to a folder of your own"
        ) from None
    entries: dict[tuple[str, str, str], Entry] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            entry = _read_line(line, f"{path}:{number}")
            entries[entry.key] = entry
    return list(entries.values())


def _read_line(line: bytes, where: str) -> Entry:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{where}: no entry of a tuning record: {error}; "
            "remove the line, or the file to measure again"
        ) from None


def add_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Put entries into a record, in the place of older ones; the file appears whole."""
    if path.exists() and not path.is_file():
        raise InvalidArgument(f"the tuning record {str(path)!r} is no file that keeps what is put")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            merged = {entry.key: entry for entry in (*read_record(path), *entries)}
            lines = [
                msgspec.json.encode(merged[key], order="deterministic") for key in sorted(merged)
            ]
            put(path, b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise InvalidArgument(
            f"the tuning record {str(path)!r} cannot be written: {in_words(error)}; "
            "name another with --tuning"
        ) from None
