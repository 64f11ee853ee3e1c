"""Leaving a client: what was written arrives, and a farewell that never comes is not waited for."""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios
from typing import Final

from tuili.server.tls import FAREWELL, Session

_LOOK_S: Final = 0.25
_MOST_LOOKS: Final = 100
# The kernel has given all away in so many looks one after the other: the loop has no more for it.
_ENOUGH: Final = 2


def leave(transport: asyncio.Transport) -> None:
    """Close a connection; over TLS, cut it once the client has everything.

    The loops wait half a minute for the client's `close_notify`, which nobody has to send (RFC 8446
    section 6.1), and a connection that rests in a client's pool never does.
    """
    if transport.is_closing():
        return
    transport.close()
    if transport.get_extra_info("sslcontext") is not None:
        _look_later(transport, 0, _MOST_LOOKS)


def part(transport: asyncio.Transport) -> None:
    """Say the last word, but listen on until the client has left, or is left.

    Over TLS that word is `close_notify`, behind which the client may still send.
    """
    if transport.can_write_eof():
        transport.write_eof()
    elif isinstance(session := transport.get_extra_info("ssl_object"), Session):
        session.parting = True
        transport.write(FAREWELL)
    else:
        leave(transport)


def _look_later(transport: asyncio.Transport, quiet: int, left: int) -> None:
    asyncio.get_running_loop().call_later(_LOOK_S, _look, transport, quiet, left)


def _look(transport: asyncio.Transport, quiet: int, left: int) -> None:
    quiet = 0 if transport.get_write_buffer_size() or _unsent(transport) else quiet + 1
    if quiet >= _ENOUGH:
        transport.abort()
    elif left:
        _look_later(transport, quiet, left - 1)


def unread(transport: asyncio.Transport) -> int:
    """Bytes from the client that lie in the kernel: a busy loop has not come to them yet."""
    return _held(transport, termios.FIONREAD)


def gone(transport: asyncio.Transport) -> bool:
    """Whether a client that had closed its half of the connection has reset it since.

    The loops look no more at a socket that they do not read.
    """
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return False
    watch = select.poll()
    watch.register(found.fileno(), 0)  # errors are told unasked
    return bool(watch.poll(0))


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds for the client."""
    return _held(transport, termios.TIOCOUTQ)


def _held(transport: asyncio.Transport, which: int) -> int:
    """Bytes of one direction in the kernel; 0 when the connection is gone."""
    found = transport.get_extra_info("socket")
    if found is None:
        return 0
    try:
        size = fcntl.ioctl(found.fileno(), which, b"\0\0\0\0")
    except (OSError, ValueError):
        return 0
    return int(struct.unpack("i", size)[0])
