"""Descriptors: how many this process may have, and how many of them its clients may take.

Connections take the lowest free number, so a number tells how many are taken. The last ones are for
the server itself: without any it could neither load a model nor start again one that died.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Final

_LOG: Final = logging.getLogger("tuili.server")
_DESCRIPTORS: Final = 65_536
_FEW_DESCRIPTORS: Final = 4096
_MOST_KEPT: Final = 512


def allow_many_connections() -> None:
    """Raise the soft limit of descriptors, which shells set to 1024, as far as is allowed."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if max(soft, most) < _FEW_DESCRIPTORS:
        _LOG.warning(
            "no more than %d files and connections can be open at once, and clients beyond %d are"
            " turned away; raise the hard limit (ulimit -Hn, LimitNOFILE of systemd)",
            max(soft, most),
            _without_kept(max(soft, most)),
        )


def for_clients() -> int:
    """The first number of a descriptor that no client may keep."""
    try:
        import resource
    except ImportError:
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else _without_kept(soft)


def _without_kept(descriptors: int) -> int:
    return descriptors - min(descriptors // 4, _MOST_KEPT)


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The number of a client's socket; -1 for one that has gone, and for our own front ends."""
    found = transport.get_extra_info("socket")
    return -1 if found is None or found.family == socket.AF_UNIX else int(found.fileno())
