"""Forks model hosts from a process that has imported what they need.

Starting Python and importing NumPy takes a third of a second of CPU; forking takes a millisecond.
That matters when a host has died, and other models share the cores with its successor. This process
has one thread, runs no model and holds no request. It ends with its server's end of the socket, and
sees to it that no host outlives that for long.

Started as `python -m tuili.backends.fork_server SOCKET GRACE_S`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import numpy.random  # NumPy itself imports it at its first use, which is in every child

from tuili.backends import host, python, triton_calls, triton_model, triton_utils
from tuili.backends.host_guard import adopt_orphans, guard
from tuili.backends.host_messages import MAX_MESSAGE

MAX_DESCRIPTORS: Final = 16
# Here for their children to have.
PRELOADED: Final = (python, triton_calls, triton_model, triton_utils)


class Fork(msgspec.Struct, array_like=True):
    """Fork a host; with it come descriptors: stdout, stderr, status, and those of the host.

    `numbers` are what the host's own descriptors must be called; the first is its socket.
    """

    name: str
    numbers: list[int]
    environment: dict[bytes, bytes]  # which, as the folder, need not be UTF-8
    folder: bytes
    cores: list[int]
    # Of the Python to be instead of a fork of this one; the socket's number comes behind it.
    command: list[bytes] = []


_decode: Final = msgspec.msgpack.Decoder(Fork).decode


def main() -> None:
    """Serve the socket whose descriptor is the first argument; the second is the grace, seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as server:
        _Server(server).serve(float(sys.argv[2]))


class _Server:
    """The loop: forks what is asked for, each with a guard that tells how it ended."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._guards: set[int] = set()  # one for each host
        self._wake, woken = socket.socketpair()
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        self._woken = woken
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self, grace_s: float) -> None:
        """Until the server is gone, and its hosts are; those that hang are ended."""
        # What is here now stays: children need not copy the pages that hold its counters.
        gc.collect()
        gc.freeze()
        while True:
            ready, _, _ = select.select([self._server, self._wake], [], [])
            if self._wake in ready:
                self._wake.recv(4096)
                self._reap()
            if self._server in ready and not self._fork_one():
                break
        self._end_all(time.monotonic() + grace_s)

    def _end_all(self, by: float) -> None:
        """Hosts end by themselves with their server, unless somebody's code does not let them."""
        while self._guards and (left_s := by - time.monotonic()) > 0:
            if select.select([self._wake], [], [], left_s)[0]:
                self._wake.recv(4096)
                self._reap()
        for pid in self._guards:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        while self._guards:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._guards.discard(pid)

    def _fork_one(self) -> bool:
        """Take one order; false when there will be no more."""
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._server, MAX_MESSAGE, MAX_DESCRIPTORS)
        except ConnectionResetError:
            return False
        if not raw:
            return False
        order = _decode(raw)
        pid = os.fork()
        if pid == 0:
            self._become_guard(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._guards.add(pid)
        return True

    def _become_guard(self, order: Fork, descriptors: list[int]) -> NoReturn:
        """In the child: fork the host, and wait for its end."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            adopt_orphans()
            host_number = os.fork()
            if host_number == 0:
                self._become_host(order, descriptors)
            guard(host_number, descriptors[2])
        finally:
            os._exit(1)

    def _become_host(self, order: Fork, descriptors: list[int]) -> None:
        """In the child: leave nothing of this process but its modules, and run the host."""
        code = 1
        try:
            _place(descriptors, order.numbers)
            # A terminal's Ctrl-C is for the server, which then ends its hosts.
            os.setsid()
            os.environb.clear()
            os.environb.update(order.environment)
            with contextlib.suppress(OSError):  # it has just been removed
                os.chdir(order.folder)
            sys.path[0] = os.fsdecode(order.folder)
            if order.cores:
                os.sched_setaffinity(0, order.cores)
            with contextlib.suppress(OSError):
                Path("/proc/self/comm").write_text(order.name[-15:], encoding="utf-8")
            if order.command:
                command = [*order.command, b"%d" % order.numbers[0]]
                os.execve(command[0], command, os.environb)  # noqa: S606 - as its own arguments
            numpy.random.seed()
            code = host.run(order.numbers[0])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException as error:  # noqa: BLE001 - the outermost frame of a process
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _place(descriptors: list[int], numbers: list[int]) -> None:
    """Give the descriptors that came their places, and close all others."""
    stdout, stderr, _, *own = descriptors
    # First out of the way of the numbers that are to be taken.
    clear = max(*numbers, *descriptors) + 1
    moved = [_moved(each, clear) for each in (stdout, stderr, *own)]
    for source, target in zip(moved, (1, 2, *numbers), strict=True):
        os.dup2(source, target)
    kept = {0, 1, 2, *numbers}
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(entry.name))


def _moved(descriptor: int, least: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, least)


if __name__ == "__main__":
    main()
