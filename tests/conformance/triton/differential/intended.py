"""Every difference from Triton that is meant, with its reason.

A row matches a case by the glob `cases` and a difference by its aspect (`status`, `text` or a path
below `body`) and by what each side answers. A row that matches nothing is stale, which is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect of one answer in which the servers differ."""

    aspect: str
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class Intended:
    """A family of differences that is meant."""

    cases: str
    aspect: str
    ours: str
    theirs: str
    reason: str

    def covers(self, case: str, difference: Difference) -> bool:
        """Whether this row tells of that difference."""
        return (
            any(fnmatchcase(case, each) for each in self.cases.split(" | "))
            and re.fullmatch(self.aspect, re.sub(r"^\d+\.", "", difference.aspect)) is not None
            and re.fullmatch(
                f"(?:{self.ours})\x00(?:{self.theirs})",
                f"{difference.ours}\x00{difference.theirs}",
                re.DOTALL,
            )
            is not None
        )


INTENDED: tuple[Intended, ...] = (
    # ---- everywhere
    Intended("*", "kind", "application/json", "text/plain", "errors are JSON, and say so"),
    Intended("*", "kind", "", "application/json", "an answer without a body has no type"),
    Intended("*", "kind", "text/plain; charset=utf-8", "text/plain", "the same, with its charset"),
    Intended(
        "*",
        "text",
        r"(.*): (?:got|input|output|'|-?[0-9]|tuili).*",
        r"\1",
        "the same words; then what was found",
    ),
    Intended(
        "*",
        "text",
        r"failed to parse the request JSON buffer: .*",
        r"failed to parse the request JSON buffer: .*",
        "another JSON parser, which says line and column",
    ),
    Intended(
        "*",
        "text",
        r"Unable to parse '[\w]+': (attempt to access JSON [\w-]+ as [\w-]+)(?:: got .*)?",
        r"\1",
        "the same words, and which key",
    ),
    Intended(
        "*",
        "text",
        r"(.*)",
        r"\[request id: <id_unknown>\] \1",
        "found before the request has an id to name",
    ),
)
