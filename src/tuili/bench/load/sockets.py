"""A non-blocking client socket that keeps what the kernel did not take."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tuili.errors import InvalidArgument, Unavailable, in_words

_CONNECT_S: Final = 10.0
_PORTS: Final = {"http": 8000, "grpc": 8001}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is and what it speaks: `http` or `grpc`."""

    protocol: str
    host: str
    port: int
    tls: bool = False

    @property
    def authority(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"


def parse_target(url: str) -> Target:
    """`http://host:8000`, `grpc://host:8001`, `https://` and `grpcs://` for TLS."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    tls = parts.scheme in ("https", "grpcs")
    protocol = parts.scheme.removesuffix("s") if tls else parts.scheme
    if protocol not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise InvalidArgument(
            f"--server {url!r}: expected http://HOST:PORT, grpc://HOST:PORT, https:// or grpcs://"
        )
    return Target(protocol, parts.hostname, parts.port or _PORTS[protocol], tls)


def connect(target: Target) -> socket.socket:
    """A connected socket, still blocking; Unavailable when nobody answers."""
    try:
        found = socket.create_connection((target.host, target.port), _CONNECT_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tls:
            # A load generator asks the server it was pointed at, whoever signed its certificate.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2" if target.protocol == "grpc" else "http/1.1"])
            found = context.wrap_socket(found, server_hostname=target.host)
    except OSError as error:
        raise Unavailable(f"no server at {target.authority}: {in_words(error)}") from error
    return found


class Stream:
    """A byte stream: sends what it can now and the rest later, and receives into a buffer."""

    def __init__(self, target: Target) -> None:
        self._socket = connect(target)
        self._socket.setblocking(False)
        self._unsent: deque[memoryview] = deque()
        self.lost = ""  # why the connection is gone

    def fileno(self) -> int:
        """For the poller."""
        return self._socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether bytes wait for the kernel."""
        return bool(self._unsent)

    def send(self, data: bytes | memoryview) -> None:
        """Send, or keep what does not go out now."""
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:
            self.lost = str(error)
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])

    def resume(self) -> None:
        """Send on."""
        while self._unsent and not self.lost:
            first = self._unsent[0]
            try:
                sent = self._socket.send(first)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError as error:
                self.lost = str(error)
                return
            if sent == len(first):
                self._unsent.popleft()
            else:
                self._unsent[0] = first[sent:]

    def receive_into(self, view: memoryview) -> int:
        """The bytes received, 0 when there are none now or `lost`."""
        try:
            size = self._socket.recv_into(view)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            self.lost = str(error)
            return 0
        if not size:
            self.lost = "the server closed the connection"
        return size

    def pending(self) -> bool:
        """Whether received bytes wait inside TLS, where no poller sees them."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def close(self) -> None:
        """Close."""
        self._socket.close()
