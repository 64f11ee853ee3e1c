"""Library: the native code of a model, loaded into the process; the structs of its ABI.

`native/tuili_abi.h` is the other side of this file.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import tempfile
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from tuili.artifact import ABI, Member
from tuili.errors import InvalidArtifact

ERROR_BYTES = 1024


class NativeRun(ctypes.Structure):
    """`tl_run`: everything that one run needs. Pointers are plain addresses."""

    _fields_ = (
        ("inputs", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("dims", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("error", ctypes.c_void_p),
        ("error_size", ctypes.c_int64),
        ("host", ctypes.c_void_p),
        ("host_context", ctypes.c_void_p),
        ("most_rounds", ctypes.c_int64),
        ("most_loop_ns", ctypes.c_int64),
        ("most_bytes", ctypes.c_int64),
    )

    inputs: int
    outputs: int
    dims: int
    weights: int
    arena: int
    offsets: int
    pool: int
    threads: int
    error: int
    error_size: int
    host: int
    host_context: int
    most_rounds: int
    most_loop_ns: int
    most_bytes: int


# int32_t (*host)(void *context, int32_t step, inputs, outputs, dims) of `tl_run`
HOST_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
)


def write_error(context: int, message: str) -> None:
    """Leave an error text in the run whose address a host function was given."""
    run = NativeRun.from_address(context)
    text = message.encode()[: ERROR_BYTES - 1]
    ctypes.memmove(run.error, text + b"\0", len(text) + 1)


class Library:
    """The functions of a model. The code is unloaded with the last reference, unless it is kept."""

    def __init__(self, member: Member) -> None:
        self.where = str(member.path)
        with _loadable(member) as path:
            try:
                self._code = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
            except OSError as error:
                raise InvalidArtifact(
                    f"{member.path}: the library does not load: {error}; compile the model again"
                ) from None
        self._unload = weakref.finalize(self, _close, self._code._handle)  # noqa: SLF001
        # A process that ends unmaps everything at once, and its threads may still be in the code.
        self._unload.atexit = False
        self._check_abi()
        address, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        self.num_offsets: Callable[[], int] = self._function("tuili_num_offsets", i64)
        self.plan: Callable[[int], int] = self._function("tuili_plan", i64, address)
        self.run: Callable[[int], int] = self._function("tuili_run", i32, address)
        self._free: Callable[[int], None] = self._function("tuili_free", None, address)
        self.create_pool: Callable[[int], int | None] = self._function(
            "tuili_pool_create", address, i32
        )
        self.resize_pool: Callable[[int, int], int] = self._function(
            "tuili_pool_resize", i32, address, i32
        )

    def _function(self, name: str, result: type | None, *arguments: type) -> Any:
        try:
            function = getattr(self._code, name)
        except AttributeError:
            raise InvalidArtifact(
                f"{self.where}: the library has no function {name}; compile the model again"
            ) from None
        function.restype = result
        function.argtypes = arguments
        return function

    def _check_abi(self) -> None:
        found = self._function("tuili_abi", ctypes.c_uint32)()
        if found != ABI:
            raise InvalidArtifact(
                f"{self.where}: the library has ABI {found}, this tuili calls ABI {ABI}; "
                "compile the model again"
            )

    def release(self, memory: int) -> None:
        """Free an output that a run allocated. The method holds the library as long as it lives."""
        self._free(memory)

    def keep(self) -> None:
        """Never unload the code: threads of the pool run in it."""
        self._unload.detach()


def _close(handle: int) -> None:
    close = ctypes.CDLL(None).dlclose
    close.argtypes = (ctypes.c_void_p,)
    close(handle)


# -- giving the loader a path ----------------------------------------------------------------------


@contextlib.contextmanager
def _loadable(member: Member) -> Generator[str]:
    """A path from which the loader takes the library, good until the library is loaded."""
    if member.offset == 0 and member.size == member.path.stat().st_size:
        yield _new_spelling(member.path.resolve())
    elif hasattr(os, "memfd_create"):
        handle = os.memfd_create(member.path.name, os.MFD_CLOEXEC)
        try:
            with os.fdopen(handle, "wb", closefd=False) as stream:
                stream.write(member.map())
            yield _new_spelling(Path(f"/proc/self/fd/{handle}"))
        finally:
            os.close(handle)
    else:
        with tempfile.TemporaryDirectory(prefix="tuili-") as folder:
            copy = Path(folder) / "model.so"
            copy.write_bytes(member.map())
            yield str(copy)


_loads = itertools.count(1)


def _new_spelling(path: Path) -> str:
    """The path, written as never before in this process.

    The loader answers a path that it knows with the library that it loaded from there, even when
    the file has been replaced since. Only a new path makes it look at the file, by its inode.
    """
    digits = "".join("/." if digit == "1" else "/" for digit in f"{next(_loads):b}")
    return f"{path.parent}{digits}/{path.name}"
