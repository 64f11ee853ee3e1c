"""What happens when mapped memory is not there any more: zeros instead of death.

A client may shrink its shared memory while a request reads it, and then the next touch of a page
past the end is a SIGBUS, which ends the process. No check beforehand can prevent that, and copying
out by `pread` costs ten times the copy. So the signal is handled: the rest of that mapping becomes
zeros of our own, the run goes on, and whoever asked for it is told that the memory was lost.

The handler is Python called through ctypes in the thread that faulted. That is sound here because
the fault is synchronous and in code that only moves numbers (memcpy, NumPy's loops, kernels), never
inside the allocator or the interpreter; threads that do not hold the GIL wait for it.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import weakref
from typing import Any, Final

import numpy as np

_SA_SIGINFO: Final = 4
_SA_NODEFER: Final = 0x40000000
_PROT_READ_WRITE: Final = 3
_MAP_PRIVATE_FIXED_ANONYMOUS: Final = 0x32


class _SignalInfo(ctypes.Structure):
    """The beginning of `siginfo_t` on 64-bit Linux."""

    _fields_ = (("numbers", ctypes.c_int * 4), ("address", ctypes.c_size_t))


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.POINTER(_SignalInfo), ctypes.c_void_p)


class _SignalAction(ctypes.Structure):
    """`struct sigaction` of glibc and musl on 64-bit Linux."""

    _fields_ = (
        ("handler", _Handler),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class Guarded:
    """One mapping whose memory may be taken away; it is watched as long as it is mapped."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = weakref.ref(memory)
        self.start: int = np.frombuffer(memory, np.uint8).ctypes.data
        self.stop = self.start + len(memory)
        self.lost = False

    @property
    def mapped(self) -> bool:
        """Whether someone can still touch it; views keep the mapping alive."""
        return self._memory() is not None


class Guard:
    """The process's handler of SIGBUS, and the mappings that it answers for."""

    def __init__(self) -> None:
        self.losses = 0
        self._guarded: list[Guarded] = []
        self._library = ctypes.CDLL(None)
        self._library.mmap.restype = ctypes.c_void_p
        self._library.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
            ctypes.c_long,
        )  # fmt: skip
        # The kernel keeps its address: it must live as long as the process.
        self._action: _SignalAction | None = None

    def watch(self, memory: mmap.mmap) -> Guarded:
        """From now on the loss of this mapping's memory is survived."""
        if self._action is None:
            self._action = _SignalAction(_Handler(self._on_fault))
            self._action.flags = _SA_SIGINFO | _SA_NODEFER
            self._library.sigaction(signal.SIGBUS, ctypes.byref(self._action), None)
        self._guarded = [each for each in self._guarded if each.mapped]
        self._guarded.append(Guarded(memory))
        return self._guarded[-1]

    def _on_fault(self, number: int, info: Any, _: object) -> None:
        """Put zeros where the memory was; the instruction that failed is tried again after it."""
        address = int(info.contents.address)
        for each in self._guarded:
            if each.start <= address < each.stop and each.mapped:
                each.lost = True
                self.losses += 1
                page = address & -mmap.PAGESIZE
                self._library.mmap(
                    page, each.stop - page, _PROT_READ_WRITE, _MAP_PRIVATE_FIXED_ANONYMOUS, -1, 0
                )
                return
        # Nobody's memory that we know: as without us, the process ends when it is tried again.
        self._library.signal(number, None)


GUARD: Final = Guard()
