"""Long requests in JSON: their tensors are read slice by slice, so that others have their turn.

Reading sixty megabytes of numbers takes seconds, and no thread helps: whatever makes Python's
objects holds the GIL. So arrays of numbers are read some ten thousand at a time, straight to NumPy,
and of the rest, which is short, the usual parser makes the document. Whatever is odd in any way is
left to that parser as a whole.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator
from typing import Any, Final

import numpy as np
import orjson

from tuili.errors import InvalidArgument
from tuili.server.http.json_tensors import LongNumbers
from tuili.server.http.json_text import parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.http.reply import Buffer
from tuili.server.protocol.messages import Array

LONG_BYTES: Final = 1 << 20  # of a text, from which on it is read so
_SLICE: Final = 64 << 10  # half a millisecond
_MOST_SHORT: Final = 10_000  # arrays that are too short for it
_OPENS: Final = re.compile(rb"\[")
_OF_NUMBERS: Final = b"[]0123456789eE+-., \t\r\n"
_OTHER: Final = re.compile(b"[^" + re.escape(_OF_NUMBERS) + b"]")
_BLANK: Final = b" \t\r\n"
_NO_BRACKETS: Final = bytes.maketrans(b"[]", b"  ")
_NUMBERS: Final = "iuf"
_OF_FLOATS: Final = b".", b"e", b"E"

Slices = Generator[None, None, Any]


class _OddError(Exception):
    """Not what this reads."""


def parse_long(text: Buffer, limits: HttpLimits) -> Slices:
    """The value of a request's JSON text, in which `LongNumbers` stand for long arrays of numbers.

    A generator that yields between slices. InvalidArgument as of `parse_json`.
    """
    try:
        if len(text) > limits.max_json_bytes:
            raise _OddError
        return (yield from _read(memoryview(text), limits))
    except _OddError:
        return parse_json(text, limits)


def _read(text: memoryview, limits: HttpLimits) -> Slices:
    key = secrets.token_hex()  # which no client knows
    short, found, done, at = list[bytes](), list[LongNumbers](), 0, 0
    skipped = 0
    while (opens := _OPENS.search(text, at)) is not None:
        start = opens.start()
        stop = yield from _end_of_run(text, start)
        if stop - start < _SLICE:
            at, skipped = max(stop, start + 1), skipped + 1
            if skipped > _MOST_SHORT:
                raise _OddError
            if skipped % 16 == 0:
                yield
            continue
        numbers, end = yield from _numbers(text, start, stop, limits.max_json_depth)
        # In a text its quote would end that, and what follows could not be.
        short += (bytes(text[done:start]), b'{"%b":%d}' % (key.encode(), len(found)))
        found.append(LongNumbers(numbers))
        done = at = end
    rest = len(text) - done + sum(map(len, short))
    if rest > LONG_BYTES or not found:
        raise _OddError
    try:
        document = parse_json(b"".join((*short, text[done:])), limits)
    except InvalidArgument:
        raise _OddError from None
    _put_back(document, key, found)
    return document


def _end_of_run(text: memoryview, start: int) -> Generator[None, None, int]:
    """Where something comes that stands in no array of numbers."""
    for at in range(start, len(text), _SLICE):
        # A tenth of the time that the search takes.
        if bytes(text[at : at + _SLICE]).translate(None, _OF_NUMBERS):
            other = _OTHER.search(text, at)
            assert other is not None
            return other.start()
        yield
    return len(text)


def _numbers(
    text: memoryview, start: int, stop: int, most_depth: int
) -> Generator[None, None, tuple[list[Array], int]]:
    """The numbers of the array that begins at `start`, and where it ends."""
    found: list[Array] = []
    depth, at, end = 0, start, stop
    while end > start and text[end - 1] != ord("]"):
        end -= 1
    if end == start:
        raise _OddError
    while at < end:
        piece = bytes(text[at : min(at + _SLICE, end)])
        last = at + len(piece) == end
        if not last:
            piece = piece[: max(piece.rfind(b","), 0)]
        before, depth = depth, depth + piece.count(b"[") - piece.count(b"]")
        if not (0 < depth <= most_depth or last) or (last and depth):
            raise _OddError
        found.append(_piece(piece, before, depth))
        at += len(piece) + 1
        yield
    return found, end


def _piece(piece: bytes, before: int, after: int) -> Array:
    """The numbers between two commas of an array, which stand in so many arrays there."""
    own = piece.strip(_BLANK)
    # What could stand behind a bracket, but not where the comma is.
    if (before and own[:1] in (b"", b"]")) or (after and own[-1:] in (b"", b"[")):
        raise _OddError
    try:
        if before != 1 or after != 1 or b"[" in own:
            orjson.loads(b"[" * before + own + b"]" * after)
        array = np.array(orjson.loads(b"[" + own.translate(_NO_BRACKETS) + b"]"))
    except (orjson.JSONDecodeError, ValueError, OverflowError):
        raise _OddError from None
    wide = array.dtype.kind == "f" and not any(sign in own for sign in _OF_FLOATS)
    if wide or array.dtype.kind not in _NUMBERS:
        raise _OddError
    return array


def _put_back(document: Any, key: str, found: list[LongNumbers]) -> None:
    """Put the numbers where they stood, if all of them are data of inputs."""
    placed = 0
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for entry in inputs if isinstance(inputs, list) else ():
        data = entry.get("data") if isinstance(entry, dict) else None
        if isinstance(data, dict) and key in data:
            entry["data"] = found[data[key]]
            placed += 1
    if placed != len(found):
        raise _OddError
