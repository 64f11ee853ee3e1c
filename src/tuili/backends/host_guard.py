"""Guard: waits for one host, and sees to it that nothing which its model started outlives it.

A group of processes ends by one signal, but a process leaves its group with `setsid`. What loses
its parent becomes a child of the next *subreaper* above it (prctl(2)), which is this process:
whatever is its child once the host has ended was left behind by the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

_PR_SET_CHILD_SUBREAPER: Final = 36
_NUMBER_BYTES: Final = 8


def adopt_orphans() -> None:
    """Be the parent of what descendants leave behind; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def guard(host: int, status: int) -> NoReturn:
    """Tell the host's number through `status`, and its exit status once it has ended."""
    _tell(status, host)
    # How the fork server ends a host that hangs.
    signal.signal(signal.SIGTERM, lambda *_: _kill_group(host))
    _close_all_but(status)
    while (ended := _wait_for_one()) != host:
        os.waitpid(ended, 0)
    # As long as it is not reaped its number is nobody else's. What its model started holds the
    # socket of the server, perhaps, which would wait for an answer for ever.
    _kill_group(host)
    _, code = os.waitpid(host, 0)
    _kill_children()
    _tell(status, os.waitstatus_to_exitcode(code))
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
            _kill_children()  # whose own have become ours
    os._exit(0)


def _wait_for_one() -> int:
    """The number of a child that has ended, and is not reaped."""
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_pid


def _kill_group(host: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(host, signal.SIGKILL)


def _kill_children() -> None:
    """End what is a child of this process."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return  # none, as for nearly every model
    own = os.getpid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent_of(entry) == own:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry.name), signal.SIGKILL)


def _parent_of(entry: Path) -> int:
    try:
        # Behind the name, which is in brackets and may have some in it.
        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def _close_all_but(status: int) -> None:
    """Hold nothing open that others wait for the end of."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2 and int(entry.name) != status:
            with contextlib.suppress(OSError):
                os.close(int(entry.name))


def _tell(status: int, number: int) -> None:
    """Send a number to whoever asked for the host."""
    with contextlib.suppress(OSError):
        os.write(status, number.to_bytes(_NUMBER_BYTES, "little", signed=True))
