"""Sizes of very many operations, as detectors have behind their proposals, as functions.

Such a size is made of those before it, so that the text of each repeats theirs: a C compiler that
expands them in every place takes minutes. Here each part of some length becomes one function of
the sizes that it starts from, which is called instead.
"""

from __future__ import annotations

import re

_LONG = 160  # characters of C
_EDGES = re.compile(r"tl_(?:floordiv|floormod|min|max|mul)\(|[()]")
_SYMBOL = re.compile(r"\bd_\w+")
_DIVISION = re.compile(r"\btl_(floordiv|floormod)\(")

# `const` allows a call before the check that keeps a divisor from being 0.
_SAFE = """
static inline int64_t tl_safe_floordiv(int64_t a, int64_t b) { return b ? tl_floordiv(a, b) : 0; }
static inline int64_t tl_safe_floormod(int64_t a, int64_t b) { return b ? tl_floormod(a, b) : 0; }
"""


class LongSizes:
    """The functions for what is long in some code."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def called(self, code: str) -> str:
        """The code with calls in place of long parts."""
        return "\n".join(
            self._line(line) if len(line) > _LONG else line for line in code.split("\n")
        )

    def definitions(self) -> str:
        """The functions, each behind those that it calls."""
        if not self._names:
            return ""
        return "\n".join([_SAFE, *(self._function(text) for text in self._names)])

    def _line(self, line: str) -> str:
        """Operations from the inside out: `parts` has what is open, each with its start."""
        parts, at = [""], 0
        for edge in _EDGES.finditer(line):
            parts[-1] += line[at : edge.start()]
            at = edge.end()
            if edge.group() != ")":
                parts.append(edge.group())
            elif len(parts) > 1:
                whole = parts.pop() + ")"
                parts[-1] += self._named(whole) if _is_long_size(whole) else whole
            else:
                parts[-1] += ")"
        return "".join(parts) + line[at:]

    def _named(self, text: str) -> str:
        name = self._names.setdefault(text, f"tl_size_{len(self._names)}")
        return f"{name}({', '.join(_symbols(text))})"

    def _function(self, text: str) -> str:
        taken = ", ".join(f"int64_t {symbol}" for symbol in _symbols(text))
        body = _DIVISION.sub(r"tl_safe_\1(", text)
        head = f"static __attribute__((noinline, const)) int64_t {self._names[text]}({taken})"
        return f"{head}\n{{\n    return {body};\n}}"


def _is_long_size(text: str) -> bool:
    return len(text) > _LONG and text.startswith("tl_")


def _symbols(text: str) -> list[str]:
    return list(dict.fromkeys(_SYMBOL.findall(text)))
