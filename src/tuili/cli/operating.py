"""How commands speak to a running server: JSON over HTTP, errors as the server words them."""

from __future__ import annotations

import getpass
import json
import urllib.error
import urllib.request
from typing import Any, cast

from tuili.errors import InvalidArgument, Unavailable

Json = dict[str, Any]


def call(
    server: str, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> Json:
    """The answer of a server at `http://host:port`."""
    if not server.startswith(("http://", "https://")):
        raise InvalidArgument(f"--server must be an http address, got {server!r}")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        server.rstrip("/") + path,
        body,
        {"Content-Type": kind, "X-Tuili-Operator": operator()},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return cast(Json, json.loads(answer.read() or b"{}"))
    except urllib.error.HTTPError as error:
        raise InvalidArgument(_told(error.read()) or f"{error.code} {error.reason}") from error
    except OSError as error:
        raise Unavailable(f"no server answers at {server}: {error}") from error


def operator() -> str:
    """Who is asking, for the journal."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _told(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
