"""Renewing: a TLS context that takes its files anew when they change, so that nobody restarts."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tuili.errors import InvalidArgument

_log: Final = logging.getLogger("tuili.server")
_LOOK_EVERY_S: Final = 1.0
Stamp = tuple[tuple[int, int, int], ...]


class Renewing(ssl.SSLContext):
    """Gives each new connection the context of the files as they are.

    Files that cannot be used, as halfway through their replacement, change nothing.
    """

    files: tuple[Path, ...]
    _make: Callable[[], ssl.SSLContext]
    _newest: ssl.SSLContext
    _stamp: Stamp
    _looked = 0.0

    @classmethod
    def of(cls, files: Sequence[Path], make: Callable[[], ssl.SSLContext]) -> Renewing:
        """What `make` makes of the files; it raises InvalidArgument where they are of no use."""
        found = cls(ssl.PROTOCOL_TLS_SERVER)
        found.files, found._make = tuple(files), make
        found._stamp = stamp_of(files)
        found._newest = make()
        return found

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """A connection over two buffers."""
        now = time.monotonic()
        if now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            self._look()
        return self._newest.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    @property
    def revokes(self) -> bool:
        """Whether there are lists of revoked certificates."""
        return self._newest.cert_store_stats()["crl"] > 0

    def usable(self) -> bool:
        """Whether the files, as they are now, can be used."""
        try:
            self._make()
        except InvalidArgument:
            return False
        return True

    def _look(self) -> None:
        stamp = stamp_of(self.files)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._newest = self._make()
        except InvalidArgument as error:
            _log.warning("the TLS files changed, and new connections get the old ones: %s", error)
        else:
            _log.info(
                "new connections get the TLS files of now: %s", ", ".join(map(str, self.files))
            )


def stamp_of(files: Sequence[Path]) -> Stamp:
    """Differs where a file was written, replaced, removed or linked elsewhere."""
    found: list[tuple[int, int, int]] = []
    for file in files:
        try:
            told = file.stat()
            found.append((told.st_mtime_ns, told.st_size, told.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)
