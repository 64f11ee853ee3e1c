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
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from tuili.backends.host_messages import END_S, MAX_MESSAGE

_NUMBER_BYTES: Final = 8
_START_S: Final = 60.0
# How long one look at what is told takes: another thread may have heard it.
_LISTEN_S: Final = 0.05
_FAREWELL_S: Final = 0.5
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
    """A process that the fork server made; its number is told through `told`, then its end.

    Any thread may ask. What is told is taken by one of them, for all: nobody takes the end for the
    number, or waits for what another one has heard.
    """

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._pid = 0
        self._status: int | None = None
        self._asking = threading.Lock()  # for the number
        self._hearing = threading.Lock()

    @property
    def pid(self) -> int:
        """Its number; waits for a fork that has not happened yet. 0: none happened in time."""
        if not self._pid:
            with self._asking:
                by = time.monotonic() + _START_S
                while not self._pid and self._status is None and time.monotonic() < by:
                    self._hear(_LISTEN_S)
        return self._pid

    def poll(self) -> int | None:
        """Its exit status (negative: the signal that ended it), None while it runs."""
        if self._status is None and self.pid:
            self._hear(0.0)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; `subprocess.TimeoutExpired` when that takes too long."""
        by = float("inf") if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = by - time.monotonic()
            if left <= 0 or not self._pid:
                raise subprocess.TimeoutExpired("model host", timeout or 0.0)
            self._hear(min(left, _LISTEN_S))
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """End it at once, with whatever its model has started."""
        if self.poll() is None and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            # Too early for it to lead a group, perhaps.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _hear(self, timeout_s: float) -> None:
        """Take what is told, if something is within that time."""
        if timeout_s:
            is_readable(self._told, timeout_s)
        with self._hearing:
            if self._status is not None:
                return
            try:
                raw = self._told.recv(_NUMBER_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:  # nothing, or another thread has it
                return
            if len(raw) < _NUMBER_BYTES:
                self._orphaned()
            elif not self._pid:
                self._pid = int.from_bytes(raw, "little", signed=True)
            else:
                self._status = int.from_bytes(raw, "little", signed=True)
                self._told.close()

    def _orphaned(self) -> None:
        """The fork server is gone, and with it whoever could have told."""
        self._status = -signal.SIGKILL
        self._told.close()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)


def is_readable(stream: socket.socket, timeout_s: float) -> bool:
    """Whether something can be read within that time; `select` knows low numbers only."""
    number = stream.fileno()
    if number < 0:
        return False  # closed by another thread
    poller = select.poll()
    poller.register(number, select.POLLIN)
    return bool(poller.poll(timeout_s * 1e3))


# Packages of an environment go before those of the server, which it may do without.
_BESIDE: Final = "import sys; sys.path += {paths!r}; from tuili.backends.host import main; main()"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Another Python than the server's, for a host: how to start it, and its variables."""

    command: list[str]
    variables: dict[str, str]


def interpreter_of(environment: Path) -> Interpreter:
    """The Python in the `bin` of an environment, with its packages."""
    here = [str(Path(__file__).parents[3]), *(each for each in sys.path if "-packages" in each)]
    variables = dict(os.environ)
    for name, part in (("PATH", "bin"), ("LD_LIBRARY_PATH", "lib")):
        there = variables.get(name, "")
        variables[name] = str(environment / part) + (os.pathsep + there if there else "")
    for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
        variables.pop(name, None)
    python = str(environment / "bin" / "python")
    return Interpreter([python, "-c", _BESIDE.format(paths=here)], variables)


def start(
    descriptors: Sequence[int], cores: frozenset[int], other: Interpreter | None = None
) -> Process:
    """A host in a fresh interpreter, with these descriptors; the first is its socket."""
    command = other.command if other else [sys.executable, "-m", "tuili.backends.host"]
    process = subprocess.Popen(
        [*command, str(descriptors[0])],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=other.variables if other else None,
        # A terminal's Ctrl-C is for the server, which then ends its hosts.
        start_new_session=True,
    )
    if cores:
        # Right after the start: the threads that it will make inherit it.
        os.sched_setaffinity(process.pid, cores)
    return process


class ForkServer:
    """The helper process; it starts with the first host, and again should it have died."""

    def __init__(self, grace_s: float = END_S + 2.0) -> None:
        """Hosts that are there `grace_s` after this process has ended are killed."""
        atexit.register(self.close)
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(
        self,
        name: str,
        descriptors: Sequence[int],
        cores: frozenset[int],
        other: Interpreter | None = None,
    ) -> Process:
        """A host with these descriptors under the same numbers; the first is its socket."""
        folder = os.fsencode(_folder())
        command = [os.fsencode(part) for part in other.command] if other else []
        variables = dict(os.environb)
        if other:
            variables = {os.fsencode(k): os.fsencode(v) for k, v in other.variables.items()}
        order = _encode([name, descriptors, variables, folder, sorted(cores), command])
        if len(order) > MAX_MESSAGE or len(descriptors) > MAX_DESCRIPTORS - 3:
            return start(descriptors, cores, other)
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
        """End the helper, once it has seen the last host end; the sockets of hosts are closing."""
        with self._lock:
            self._end()

    def _running(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tuili.backends.fork_server",
                    str(theirs.fileno()),
                    str(self._grace_s),
                ],
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
            # It stays while hosts do, longer than we wait for it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL_S)


def _folder() -> Path:
    """Where this process is; it may have been removed, as by a deployment, under a server."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


FORK_SERVER: Final = ForkServer()
