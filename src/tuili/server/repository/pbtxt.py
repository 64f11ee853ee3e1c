"""Reads `config.pbtxt`: protobuf's text format, typed by the schema; errors carry line and column.

Grammar (https://protobuf.dev/reference/protobuf/textformat-spec), as far as ModelConfig needs it:

    message := field*
    field   := name (":" value | [":"] block) [";" | ","]
    value   := scalar | "[" [item ("," item)*] "]"     item := scalar | block
    block   := "{" message "}" | "<" message ">"
    scalar  := string+ | ["-"] number | identifier
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, cast

from tuili.errors import ParseError, nearest
from tuili.server.repository.schema import (
    ENUMS,
    INTEGERS,
    MESSAGES,
    ONE_OF,
    SCALARS,
    field_type,
    unfit,
)
from tuili.server.repository.source import Marks, Place, position

Json = dict[str, Any]

_TOKEN: Final = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?|inf(?:inity)?\b|nan\b))
    |(?P<name>[A-Za-z_]\w*)
    |(?P<mark>[][{}<>:;,])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL
)
_SIMPLE: Final = {
    **dict(zip("abfnrtv", (bytes([at]) for at in (7, 8, 12, 10, 13, 9, 11)), strict=True)),
    **{char: char.encode() for char in "\\'\"?"},
}
_OCTAL: Final = re.compile(r"-?0[0-7]+")
_CLOSING: Final = {"{": "}", "<": ">"}
_MAX_DEPTH: Final = 32


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> tuple[Json, Marks]:
    """The JSON form of `ModelConfig` (snake_case names, enum names); where its fields stand."""
    reader = _Reader(text)
    return reader.message("ModelConfig", ""), reader.marks


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0
        self._place: list[str | int] = []
        self.marks: dict[Place, int] = {}

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise self._error(f"unexpected character {self._text[at]!r}", at)
            kind = found.lastgroup or ""
            if kind != "space":
                tokens.append(_Token(kind, found.group(), at))
            at = found.end()
        tokens.append(_Token("end", "", at))
        return tokens

    def message(self, kind: str, closing: str) -> Json:
        """Fields up to `closing` (or the end of the text)."""
        if len(self._place) > _MAX_DEPTH:
            raise self._error("messages are nested too deeply", self._peek().at)
        found: Json = {}
        while (token := self._take()).text != closing or token.kind == "string":
            if token.kind == "end":
                raise self._error(f"the text ends before {closing!r}", token.at)
            self._field(kind, token, found)
        return found

    def _field(self, message: str, name: _Token, found: Json) -> None:
        fields = MESSAGES[message]
        if name.kind != "name":
            raise self._error(
                f"expected the name of a field of {message}, found {name.text!r}", name.at
            )
        if name.text not in fields:
            hint = nearest(name.text, fields)
            raise self._error(f"{message} has no field {name.text!r}.{hint}", name.at)
        for other in ONE_OF.get(message, ()):
            if name.text in ONE_OF[message] and other in found and other != name.text:
                raise self._error(f"only one of {other!r} and {name.text!r} may be set", name.at)
        with self._below(name.text, name.at):
            self._value_of(message, name, found)
        if self._peek().text in (";", ","):
            self._take()

    def _value_of(self, message: str, name: _Token, found: Json) -> None:
        how, kind = field_type(message, name.text)
        colon = self._peek().text == ":"
        if colon:
            self._take()
        elif kind not in MESSAGES and not how.startswith("map"):
            raise self._error(f"expected ':' after {name.text!r}", self._peek().at)
        if how.startswith("map:"):
            entries = cast(Json, found.setdefault(name.text, {}))
            self._each(lambda: self._entry(how.removeprefix("map:"), kind, entries))
        elif how == "many":
            items = cast(list[Any], found.setdefault(name.text, []))
            self._each(lambda: self._item(kind, items))
        elif name.text in found:
            raise self._error(f"field {name.text!r} is set twice", name.at)
        else:
            found[name.text] = self._one(kind)

    def _each(self, read: Callable[[], None]) -> None:
        """One item, or a bracketed list of them."""
        if self._peek().text != "[":
            read()
            return
        self._take()
        while self._peek().text != "]":
            read()
            separator = self._peek()
            if separator.text == ",":
                self._take()
            elif separator.text != "]":
                raise self._error(f"expected ',' or ']', found {separator.text!r}", separator.at)
        self._take()

    def _item(self, kind: str, items: list[Any]) -> None:
        with self._below(len(items), self._peek().at):
            items.append(self._one(kind))

    @contextmanager
    def _below(self, step: str | int, at: int) -> Generator[None]:
        """What is read meanwhile belongs to the place `step` below this one."""
        self._place.append(step)
        self.marks.setdefault(tuple(self._place), at)
        yield
        self._place.pop()

    def _entry(self, key_kind: str, kind: str, entries: Json) -> None:
        """A map entry: `{ key: K value: V }`."""
        opening = self._take()
        if opening.text not in _CLOSING:
            raise self._error(
                f"expected '{{ key: ... value: ... }}', found {opening.text!r}", opening.at
            )
        key: object = None
        value: Any = {} if kind in MESSAGES else None
        while (token := self._take()).text != _CLOSING[opening.text]:
            if token.text not in ("key", "value"):
                raise self._error(f"expected 'key' or 'value', found {token.text!r}", token.at)
            if self._peek().text == ":":
                self._take()
            if token.text == "key":
                key = self._scalar(key_kind)
            else:
                with self._below(str(key), token.at):
                    value = self._one(kind)
            if self._peek().text in (";", ","):
                self._take()
        if key is None:  # as in protobuf
            key = "" if key_kind == "string" else 0
        entries[str(key)] = value

    def _one(self, kind: str) -> object:
        if kind not in MESSAGES:
            return self._scalar(kind)
        opening = self._take()
        if opening.text not in _CLOSING:
            raise self._error(f"expected '{{' to open {kind}, found {opening.text!r}", opening.at)
        return self.message(kind, _CLOSING[opening.text])

    def _scalar(self, kind: str) -> object:
        token = self._take()
        if kind in ENUMS:
            return self._enum(kind, token)
        if kind == "string" and token.kind == "string":
            return self._string(token)
        if kind == "bool" and token.text in ("true", "false", "True", "False", "t", "f", "1", "0"):
            return token.text in ("true", "True", "t", "1")
        if kind in (*INTEGERS, "float") and token.kind == "number":
            return self._number(kind, token)
        raise self._error(f"expected {SCALARS[kind]}, found {token.text or 'the end'!r}", token.at)

    def _string(self, token: _Token) -> str:
        """A text, perhaps in several pieces, whose escapes are those of bytes in UTF-8."""
        first, value = token, b""
        while True:
            try:
                value += _unquoted(token.text)
            except ValueError as error:  # or a number that is no byte or no character
                raise self._error(f"{token.text} has a wrong escape: {error}", token.at) from None
            if self._peek().kind != "string":
                break
            token = self._take()
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise self._error(f"{first.text} is no text in UTF-8: {error}", first.at) from None

    def _number(self, kind: str, token: _Token) -> float:
        written = "".join(token.text.split())
        octal = _OCTAL.fullmatch(written)
        try:
            if kind == "float":
                found = float(written.rstrip("fF"))
            else:
                found = int(written, 8 if octal else 0)
        except ValueError:
            raise self._error(f"expected {SCALARS[kind]}, found {token.text!r}", token.at) from None
        wanted = unfit(kind, found)
        if wanted:
            raise self._error(f"expected {wanted}, found {token.text!r}", token.at)
        return found

    def _enum(self, kind: str, token: _Token) -> str:
        names = ENUMS[kind]
        if token.text in names:
            return token.text
        if token.kind == "number" and token.text.isdigit() and int(token.text) < len(names):
            return names[int(token.text)]
        hint = nearest(token.text, names)
        raise self._error(f"{token.text!r} is no {kind}.{hint}", token.at)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _error(self, message: str, at: int) -> ParseError:
        line, column = position(self._text, at)
        shown = self._text[at - column + 1 :].partition("\n")[0]
        return ParseError(message, line=line, column=column, text=shown)


def _unquoted(text: str) -> bytes:
    """The bytes of a quoted string; ValueError for an escape that protobuf does not have."""
    return _ESCAPE.sub(_meant, text[1:-1].encode())


def _meant(found: re.Match[bytes]) -> bytes:
    escape = found[1].decode(errors="replace")
    if escape[0] in "01234567":
        return bytes([int(escape, 8)])
    if escape[0] in "xX" and len(escape) > 1:
        return bytes([int(escape[1:], 16)])
    if escape[0] in "uU" and len(escape) == (5 if escape[0] == "u" else 9):
        return chr(int(escape[1:], 16)).encode()
    if escape in _SIMPLE:
        return _SIMPLE[escape]
    raise ValueError(f"\\{escape}")
