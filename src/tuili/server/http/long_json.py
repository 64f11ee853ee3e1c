"""Long JSON: read piece by piece, so that others have their turn.

To read sixty megabytes takes seconds, and no thread helps: whatever makes Python's objects holds
the GIL. So a text is cut at commas into pieces. The usual parser reads each, once the arrays and
objects that are open before it are opened, and those open behind it closed; what it finds is added
to those. An array that is not whole after one piece becomes a `LongArray`, if it does not turn out
to be short.
"""

from __future__ import annotations

import codecs
import json
import re
import secrets
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from tuili.errors import InvalidArgument
from tuili.server.http.json_text import STEP, TooDeep, check_size, repeated_keys
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_values import LongArray, forget
from tuili.server.http.refusals import JsonMistake
from tuili.server.http.reply import Buffer

LONG_BYTES: Final = 256 << 10  # of a text, from which on it is read so
_SLICE: Final = 64 << 10  # about a millisecond
_LONGEST_WORD: Final = 4096  # of what is no text: a number or a name
_BLANK: Final = b" \t\r\n"
_BRACKETS: Final = b"[]{}"
_QUOTE, _COMMA = ord('"'), ord(",")
_IS_BRACKET: Final = np.isin(np.arange(256), list(_BRACKETS))
_UNPAIRED: Final = re.compile(rb"([\]}]*)([\[{]*)")
_CLOSING: Final = {"[": b"]", "{": b"}"}

Slices = Generator[None, None, Any]


class _Open(NamedTuple):
    """An array or object that has begun and not ended, and where it lies."""

    value: LongArray | dict[str, Any]
    holder: Any  # nothing, for the outermost
    place: Any


def parse_long(text: Buffer, limits: HttpLimits, repeated: list[str] | None = None) -> Slices:
    """The value of a request's JSON text, in which some arrays are `LongArray`s.

    A generator that yields between pieces. InvalidArgument as of `parse_json`. The keys that the
    outermost object gives more than once are added to `repeated`.
    """
    check_size(len(text), limits)
    view = memoryview(text)
    at = len(codecs.BOM_UTF8) if bytes(view[:3]) == codecs.BOM_UTF8 else 0
    end = len(view)
    while end > at and not bytes(view[max(end - _SLICE, at) : end]).strip(_BLANK):
        end = max(end - _SLICE, at)
        yield
    document = _Document(limits, repeated)
    try:
        while not document.whole:
            stop, brackets = yield from _cut(view[:end], at, document.depth, limits.max_json_depth)
            document.read(bytes(view[at:stop]), brackets, at, last=stop == end)
            at = stop + 1
            yield
    except InvalidArgument:
        yield from forget(document.root)
        raise
    return document.root


def _cut(
    text: memoryview, start: int, depth: int, most_depth: int
) -> Generator[None, None, tuple[int, bytes]]:
    """Where a piece ends that begins outside of strings at `start`, and the brackets in it."""
    at, inside, found = start, 0, b""
    while at < len(text):
        window = bytes(text[at : at + _SLICE])
        plain = window.replace(rb"\\", b"__").replace(rb"\"", b"__")
        codes = np.frombuffer(plain, np.uint8)
        within = np.cumsum(codes == _QUOTE, dtype=np.uint8) + np.uint8(inside) & 1
        outside = np.where(within, 0, codes)
        commas = np.flatnonzero(outside == _COMMA)
        size = len(window)
        if at + size < len(text) and commas.size:
            size = int(commas[-1])
        brackets = outside[:size][_IS_BRACKET[outside[:size]]]
        found += brackets.tobytes()
        depths = STEP[brackets].cumsum(dtype=np.int64) + depth
        if depths.max(initial=0) > most_depth:
            raise TooDeep(most_depth)
        depth = int(depths[-1]) if depths.size else depth
        if at + size == len(text) or commas.size:
            return at + size, found
        if np.count_nonzero(outside > ord(" ")) - len(brackets) > _LONGEST_WORD:
            raise JsonMistake(_MALFORMED.format("a word without end", at))
        inside = int(within[-1])
        at += size + plain.endswith(b"\\")  # what it escapes is no quote
        yield
    return len(text), found


class _Document:
    """What was read of a text."""

    def __init__(self, limits: HttpLimits, repeated: list[str] | None) -> None:
        self._repeated = repeated
        self.root: Any = None
        self.whole = False
        self._open: list[_Open] = []
        self._key = secrets.token_hex()  # which no client knows
        self._most_members = limits.max_json_members

    @property
    def depth(self) -> int:
        """How many arrays and objects are open."""
        return len(self._open)

    def read(self, piece: bytes, brackets: bytes, at: int, *, last: bool) -> None:
        """Read the next piece, which lies at `at`."""
        self.whole = last
        own, first = piece.strip(_BLANK), self.root is None
        # What could stand behind a bracket, but not where the comma is.
        if (not first and own[:1] in (b"", b"]", b"}")) or (not last and own[-1:] in b"[{"):
            raise JsonMistake(_MALFORMED.format("a comma without a value", at))
        closing, opening = _unpaired(brackets)
        left = len(self._open) - closing
        if left < 0 or (not last and left + len(opening) == 0):
            raise JsonMistake(_MALFORMED.format("more brackets closed than opened", at))
        closes = b"" if last else self._closes(left, opening)
        text = b"".join((self._opens(), own, closes))
        value = _loads(text, at)
        if self._repeated is not None and left <= 1:
            # The outermost object goes on in this piece.
            self._repeated += repeated_keys(text)
        self._add(value, left, opening)

    def _opens(self) -> bytes:
        """What opens all that is open, up to where a piece goes on."""
        texts = [b"[" if isinstance(each.value, LongArray) else b"{" for each in self._open]
        for index in range(len(texts) - 1):
            if texts[index] == b"{":
                texts[index] += b'"%b":' % self._key.encode()
        return b"".join(texts)

    def _closes(self, left: int, opening: str) -> bytes:
        kinds = ["[" if isinstance(each.value, LongArray) else "{" for each in self._open[:left]]
        return b"".join(_CLOSING[kind] for kind in reversed(kinds + list(opening)))

    def _add(self, value: Any, left: int, opening: str) -> None:
        """Add what was found to what was open, of which the outermost `left` stay so."""
        parts: list[Any] = []
        for index, each in enumerate(self._open):
            parts.append(value)
            if index + 1 < len(self._open):
                value = value.pop(0 if isinstance(each.value, LongArray) else self._key)
        before, self._open = self._open, self._open[:left]
        begun = self._begin(parts[left - 1] if left else None, value, opening)
        for each, part in zip(reversed(before), reversed(parts), strict=True):
            self._extend(each.value, part)
        for each in reversed(before[left:]):
            self._end(each)
        for array, part in begun:
            array.add(part)

    def _begin(self, part: Any, value: Any, opening: str) -> list[tuple[LongArray, list[Any]]]:
        """Open what a piece leaves open: the last of `part`, the last of that, and so on."""
        begun: list[tuple[LongArray, list[Any]]] = []
        if self.root is None:
            self.root = value
        holder: Any = self._open[-1].value if isinstance(part, dict) else part
        for _ in opening:
            place: Any = None
            if part is not None:
                place = len(part) - 1 if isinstance(part, list) else next(reversed(part))
                value = part[place]
            opened: Any = LongArray() if isinstance(value, list) else value
            if isinstance(value, list):
                begun.append((opened, value))
            if part is None:
                self.root = opened
            else:
                part[place] = opened
            self._open.append(_Open(opened, holder, place))
            part = holder = value
        return begun

    def _extend(self, container: LongArray | dict[str, Any], part: Any) -> None:
        if isinstance(container, LongArray):
            container.add(part)
            return
        if self._repeated is not None and container is self.root:
            self._repeated += container.keys() & part.keys()
        container.update(part)
        if len(container) > self._most_members:
            raise InvalidArgument(f"a JSON object of more than {self._most_members} members")

    def _end(self, ended: _Open) -> None:
        """An array that was short after all is a list."""
        value = ended.value
        plain = value.plain() if isinstance(value, LongArray) else None
        if plain is None:
            return
        if ended.holder is None:
            self.root = plain
        else:
            ended.holder[ended.place] = plain


def _unpaired(brackets: bytes) -> tuple[int, str]:
    """How many brackets of before are closed, and those that stay open, of a piece."""
    size = -1
    while size != len(brackets):
        size = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    found = _UNPAIRED.fullmatch(brackets)
    if found is None:
        raise JsonMistake("failed to parse the request JSON buffer: brackets do not match")
    return len(found[1]), found[2].decode()


def _loads(text: bytes, at: int) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" in text or b"Infinity" in text:
            try:
                return json.loads(text)
            except ValueError:
                pass  # the strict parser's message is the better one
        raise JsonMistake(_MALFORMED.format(error.msg, at)) from None


_MALFORMED: Final = "failed to parse the request JSON buffer: {} (behind byte {})"
