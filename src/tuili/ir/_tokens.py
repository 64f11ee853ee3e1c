"""Tokens of the text form, and a cursor over them that reports errors with line and caret."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from tuili.errors import ParseError
from tuili.ir._printing import NAME, WORD

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKENS = re.compile(
    rf"(?P<space>(?:\s+|\#[^\n]*)+)|(?P<string>{_STRING})|(?P<value>%(?:{WORD}|{_STRING}))"
    rf"|(?P<key>@(?:{WORD}|{_STRING}))"
    r"|(?P<number>-?(?:inf\b|nan\b|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))"
    rf"|(?P<name>{NAME})|(?P<mark>//|[(){{}}\[\]=,:<>*+%-])"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text; `start` and `end` count characters of the whole text."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def content(self) -> str:
        """What stands behind `%` or `@`, or between quotes."""
        inner = self.text[1:] if self.kind in ("value", "key") else self.text
        return str(json.loads(inner)) if inner.startswith('"') else inner


class Cursor:
    """The tokens of a text and the place reached in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._split())
        self.place = 0

    def _split(self) -> list[Token]:
        tokens: list[Token] = []
        start = 0
        while start < len(self.text):
            found = _TOKENS.match(self.text, start)
            if found is None:
                self.fail(f"unexpected character {self.text[start]!r}", start)
            kind = found.lastgroup or ""
            if kind != "space":
                tokens.append(Token(kind, found.group(), start, found.end()))
            start = found.end()
        return tokens

    @property
    def token(self) -> Token:
        """The next token; an `end` token behind the last."""
        if self.place < len(self.tokens):
            return self.tokens[self.place]
        return Token("end", "end of text", len(self.text), len(self.text))

    def take(self) -> Token:
        """The next token, passed."""
        token = self.token
        self.place += 1
        return token

    def found(self, text: str) -> bool:
        """Pass the next token when it is `text`."""
        if self.token.text == text and self.token.kind in ("mark", "name"):
            self.place += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Pass `text`, or fail."""
        if not self.found(text):
            self.fail(f"expected {text!r}, found {self.token.text!r}")

    def kind(self, kind: str, what: str) -> Token:
        """Pass a token of one kind, or fail saying `what` was expected."""
        if self.token.kind != kind:
            self.fail(f"expected {what}, found {self.token.text!r}")
        return self.take()

    def content(self, kind: str, what: str) -> str:
        """Pass a token of one kind; its content."""
        token = self.kind(kind, what)
        try:
            return token.content
        except ValueError as error:
            self.fail(f"not a valid string ({error})", token.start)

    def fail(self, message: str, start: int | None = None) -> NoReturn:
        """Raise ParseError at a place, or at the next token."""
        at = self.token.start if start is None else start
        line = self.text.count("\n", 0, at) + 1
        first = self.text.rfind("\n", 0, at) + 1
        last = self.text.find("\n", first)
        shown = self.text[first : None if last < 0 else last]
        raise ParseError(message, line=line, column=at - first + 1, text=shown)
