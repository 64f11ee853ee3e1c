"""Call: one HTTP request for an operation other than inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuili.errors import InvalidArgument
from tuili.server.dataplane import DataPlane
from tuili.server.http.head import Head
from tuili.server.http.json_text import parse_json
from tuili.server.http.limits import HttpLimits
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

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; {} when there is none."""
        if not len(self.body):
            return {}
        document = parse_json(self.body, self.limits)
        if not isinstance(document, dict):
            raise InvalidArgument("the request JSON must be an object")
        return document
