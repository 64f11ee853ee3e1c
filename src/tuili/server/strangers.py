"""Clients that speak another protocol than a port does: which it is, and what to do about it."""

from __future__ import annotations

import logging
import re
from typing import Final

_LOG: Final = logging.getLogger("tuili.server")

TLS: Final = "TLS"
PROXY: Final = "the PROXY protocol"
HTTP1: Final = "HTTP/1"
HTTP2: Final = "HTTP/2"

# By what a client sends first, empty lines aside.
_OPENINGS: Final = (
    (re.compile(rb"\x16\x03"), TLS),  # RFC 8446 section 5.1
    (re.compile(rb"PROXY |\0\r\nQUIT\n"), PROXY),  # its versions 1 and 2
    (re.compile(rb"PRI \* HTTP/2"), HTTP2),  # RFC 9113 section 3.4
    (re.compile(rb"[A-Z]{3,10} [!-~]+ HTTP/1"), HTTP1),
)
_CROWD: Final = "crowd"
_ADVICE: Final = {
    TLS: "this port has no TLS",
    PROXY: "turn it off in the proxy before this server",
    HTTP1: "HTTP has a port of its own",
    HTTP2: "gRPC has a port of its own",
}


def stranger(start: bytes, expected: str) -> str:
    """What a client speaks that begins with `start` in place of `expected`; "" if that is unclear.

    `expected` begins with the port's own protocol, whose mistakes are none of a stranger.
    """
    start = start.lstrip(b"\r\n")
    for opening, name in _OPENINGS:
        if opening.match(start) and not expected.startswith(name):
            return f"found {name}, expected {expected}: {_ADVICE[name]}"
    return ""


class Complaints:
    """Has the log tell of each kind of stranger once, as health checks come for ever."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, text: str, address: str) -> None:
        """A client was refused for what `text` says."""
        if text.startswith("found ") and text not in self._told:
            self._told.add(text)
            _LOG.warning("a client at %s was refused: %s (told once)", address or "?", text)

    def crowd(self, most: int) -> None:
        """A client was turned away, as this process has `most` descriptors in use."""
        if _CROWD not in self._told:
            self._told.add(_CROWD)
            _LOG.warning(
                "clients are turned away: %d files and connections are open, and the rest are kept"
                " for the server itself; raise the limit (ulimit -n; told once a port)",
                most,
            )
