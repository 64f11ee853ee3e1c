"""HostChild: one process that runs a model, with its sockets and the memory of its slots."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuili.backends import BackendOptions
from tuili.backends.host_messages import END_S, Load, to_specs
from tuili.server.execution.host_processes import FORK_SERVER, Process, interpreter_of
from tuili.server.execution.outbox import Outbox

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What a host runs and what it may take; 0 means no limit."""

    name: str
    backend: str
    path: Path
    options: BackendOptions
    slots: int = 2
    load_timeout_s: float = 1200.0  # a large model takes minutes
    run_timeout_s: float = 0.0
    max_rss_bytes: int = 0
    cores: frozenset[int] = frozenset()
    # A folder with another Python environment to run in.
    environment: Path | None = None


class HostChild:
    """A process, the socket of its orders, the one of its calls, and the memory of its slots."""

    def __init__(self, spec: HostSpec) -> None:
        """Start it; what is open is closed again when that fails half-way."""
        self._spec = spec
        with contextlib.ExitStack() as undo:
            self._begin(undo)
            undo.pop_all()

    def _begin(self, undo: contextlib.ExitStack) -> None:
        self.socket, theirs = _socket_pair(undo)
        calls, their_calls = _socket_pair(undo)
        self.memories: list[int] = []
        for at in range(self._spec.slots):
            self.memories.append(_slot_memory(at))
            undo.callback(os.close, self.memories[-1])
        with theirs, their_calls:
            # By which it knows its socket for calls.
            self._calls_number = their_calls.fileno()
            descriptors = [theirs.fileno(), self._calls_number, *self.memories]
            environment = self._spec.environment
            other = None if environment is None else interpreter_of(environment)
            self.process: Process = FORK_SERVER.fork(
                self._spec.name, descriptors, self._spec.cores, other
            )
        calls.setblocking(False)
        self.calls = Outbox(calls)

    def load(self) -> Load:
        """Its first order."""
        options = self._spec.options
        return Load(
            self._spec.backend,
            os.fsencode(self._spec.path),
            options.threads,
            dict(options.parameters),
            to_specs(options.declared_inputs),
            to_specs(options.declared_outputs),
            options.max_batch_size,
            options.decoupled,
            options.instance,
            options.config_json,
            self.memories,
            self._calls_number,
        )

    def ends_itself(self) -> bool:
        """Whether it goes by itself when it is told that it is over."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            self.process.wait(END_S + 1.0)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return True

    def cause_of_death(self) -> str:
        """How it ended; it has closed its socket, so it is ending if it has not yet."""
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if status < 0:
            return f"signal {-status}, {signal.Signals(-status).name}"
        return f"exit status {status}"

    def rss_bytes(self) -> int:
        """Its resident memory; 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(fields[1]) * _PAGE

    def hang_up(self, *, calls: bool) -> None:
        """Close our ends, that of its calls too where nobody else does."""
        self.socket.close()
        if calls:
            self.calls.close()
        for descriptor in self.memories:
            os.close(descriptor)


def _socket_pair(undo: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    undo.callback(ours.close)
    undo.callback(theirs.close)
    return ours, theirs


def _slot_memory(at: int) -> int:
    """A memfd that neither side can shrink under the other's views."""
    descriptor = os.memfd_create(f"tuili_host_{at}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor
