"""Processes of model hosts: forked by a helper that has everything imported, or started anew.

The server itself must not fork: it has threads, and more memory than a host should inherit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from tuili.backends.host_messages import MAX_MESSAGE

_NUMBER_BYTES: Final = 8
_START_S: Final = 60.0
MAX_DESCRIPTORS: Final = 16
_encode: Final = msgspec.msgpack.Encoder().encode


class Process(Protocol):
    """A running host, as far as its owner can tell; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


class Forked:
    """A process that the fork server made; its end is told through `told`."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._pid = 0
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """Its number; waits for a fork that has not happened yet."""
        if not self._pid and self._status is None:
            self._pid = self._number(_START_S) or 0
        return self._pid

    def poll(self) -> int | None:
        """Its exit status (negative: the signal that ended it), None while it runs."""
        if self._status is None and self.pid:
            self._ended(self._number(0.0))
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; `subprocess.TimeoutExpired` when that takes too long."""
        if self._status is None and self.pid:
            self._ended(self._number(timeout))
        if self._status is None:
            raise subprocess.TimeoutExpired("model host", timeout or 0.0)
        return self._status

    def _ended(self, status: int | None) -> None:
        """Remember the status, after which nothing more is told."""
        self._status = status
        if status is not None:
            self._told.close()

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _number(self, timeout_s: float | None) -> int | None:
        ready, _, _ = select.select([self._told], [], [], timeout_s)
        if not ready:
            return None
        raw = self._told.recv(_NUMBER_BYTES)
        if len(raw) == _NUMBER_BYTES:
            return int.from_bytes(raw, "little", signed=True)
        # The fork server is gone, and with it whoever could have told.
        self._status = -signal.SIGKILL
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        return self._status


# Packages of an environment go before those of the server, which it may do without.
_BESIDE: Final = "import sys; sys.path += {paths!r}; from tuili.backends.host import main; main()"


def start(descriptors: Sequence[int], cores: frozenset[int]) -> Process:
    """A host in a fresh interpreter, with these descriptors; the first is its socket."""
    return _start([sys.executable, "-m", "tuili.backends.host"], descriptors, cores, None)


def start_in(environment: Path, descriptors: Sequence[int], cores: frozenset[int]) -> Process:
    """As `start`, by the Python in the `bin` of an environment and with its packages."""
    here = [str(Path(__file__).parents[3]), *(each for each in sys.path if "-packages" in each)]
    variables = dict(os.environ)
    for name, part in (("PATH", "bin"), ("LD_LIBRARY_PATH", "lib")):
        there = variables.get(name, "")
        variables[name] = str(environment / part) + (os.pathsep + there if there else "")
    for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
        variables.pop(name, None)
    python = str(environment / "bin" / "python")
    command = [python, "-c", _BESIDE.format(paths=here)]
    return _start(command, descriptors, cores, variables)


def _start(
    command: list[str],
    descriptors: Sequence[int],
    cores: frozenset[int],
    variables: dict[str, str] | None,
) -> Process:
    process = subprocess.Popen(
        [*command, str(descriptors[0])],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=variables,
        # A terminal's Ctrl-C is for the server, which then ends its hosts.
        start_new_session=True,
    )
    if cores:
        # Right after the start: the threads that it will make inherit it.
        os.sched_setaffinity(process.pid, cores)
    return process


class ForkServer:
    """The helper process; it starts with the first host, and again should it have died."""

    def __init__(self) -> None:
        atexit.register(self.close)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(self, name: str, descriptors: Sequence[int], cores: frozenset[int]) -> Process:
        """A host with these descriptors under the same numbers; the first is its socket."""
        folder = os.fsencode(Path.cwd())
        order = _encode([name, descriptors, dict(os.environb), folder, sorted(cores)])
        if len(order) > MAX_MESSAGE or len(descriptors) > MAX_DESCRIPTORS - 3:
            return start(descriptors, cores)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            along = [1, 2, theirs.fileno(), *descriptors]
            with self._lock:
                try:
                    socket.send_fds(self._running(), [order], along)
                except (BrokenPipeError, ConnectionResetError):
                    self._end()
                    socket.send_fds(self._running(), [order], along)
        return Forked(ours)

    def close(self) -> None:
        """End the helper; hosts end by themselves, as their sockets close."""
        with self._lock:
            self._end()

    def _running(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tuili.backends.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours
        return ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


FORK_SERVER: Final = ForkServer()
