"""Call: one HTTP request for an operation other than inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuili.errors import InvalidArgument, TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.http.head import Head
from tuili.server.http.json_text import NotPlain, parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_values import SHORT, LongArray
from tuili.server.http.reply import Buffer
from tuili.server.http.routes import Match


@dataclass(slots=True)
class Call:
    """One request for an operation."""

    dataplane: DataPlane
    head: Head
    match: Match
    body: Buffer
    limits: HttpLimits
    document: Any = None  # of a long body, or what is wrong with it

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; {} when there is none."""
        if not len(self.body):
            return {}
        if isinstance(self.document, TuiliError):
            raise self.document
        document = parse_json(self.body, self.limits) if self.document is None else self.document
        if not isinstance(document, dict):
            raise InvalidArgument("the request JSON must be an object")
        _require_short(document)
        return document


def _require_short(document: dict[str, Any]) -> None:
    """No operation has a use for long arrays."""
    for key, value in document.items():
        if isinstance(value, LongArray):
            raise NotPlain(f"'{key}' is {value!r}, expected {SHORT} at most")
        if isinstance(value, dict):
            _require_short(value)
