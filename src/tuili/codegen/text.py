"""Text as C: comments, strings, lines."""

from __future__ import annotations

import textwrap


def comment_text(text: str) -> str:
    """A C comment."""
    return f"/* {text.replace('*/', '* /')} */"


def c_string(text: str) -> str:
    """A C string; octal escapes, because a hexadecimal one would swallow digits that follow."""
    plain = {byte: chr(byte) for byte in range(32, 127)} | {34: r"\"", 92: r"\\"}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in text.encode()) + '"'


def indent(lines: list[str], depth: int = 1) -> list[str]:
    """The lines, `depth` levels deeper."""
    return [textwrap.indent(line, "    " * depth) for line in lines]
