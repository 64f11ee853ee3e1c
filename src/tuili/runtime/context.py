"""Context: what one run at a time writes to."""

from __future__ import annotations

import ctypes

from tuili.runtime.arena import Arena
from tuili.runtime.arrays import address_of
from tuili.runtime.library import ERROR_BYTES, Library, NativeRun
from tuili.runtime.plan import Plan
from tuili.tensors import Array


class Context:
    """The argument of the native call, with the arrays that it points to and its arena."""

    __slots__ = (
        "__weakref__",
        "_own_dims",
        "_weights",
        "address",
        "arena",
        "dims",
        "error",
        "inputs",
        "library",
        "outputs",
        "plan",
        "run",
        "threads",
    )

    def __init__(
        self,
        library: Library,
        weights: Array,
        num_inputs: int,
        num_outputs: int,
        num_dims: int,
        *,
        own_dims: bool,
    ) -> None:
        # Held here too, so that a run in flight keeps what it uses when its model is closed.
        self.library = library
        self._weights = weights
        self.arena = Arena()
        self.inputs = (ctypes.c_void_p * max(num_inputs, 1))()
        self.outputs = (ctypes.c_void_p * max(num_outputs, 1))()
        self.dims = (ctypes.c_int64 * max(num_dims, 1))()
        self.error = ctypes.create_string_buffer(ERROR_BYTES)
        self.plan: Plan | None = None
        self.threads = 0
        self._own_dims = own_dims  # because a run writes data-dependent dims
        self.run = NativeRun()
        self.run.inputs = ctypes.addressof(self.inputs)
        self.run.outputs = ctypes.addressof(self.outputs)
        self.run.error = ctypes.addressof(self.error)
        self.run.error_size = ERROR_BYTES
        self.run.weights = address_of(weights)
        self.address = ctypes.addressof(self.run)

    def use_threads(self, threads: int) -> None:
        """Let the next runs take up to so many; memory is planned for the most there were."""
        self.run.threads = self.threads = threads

    def bind(self, plan: Plan) -> None:
        """Prepare for the runs of a plan; raises MemoryError."""
        self.plan = None
        self.run.arena = self.arena.reserve(plan.arena_bytes)
        self.run.offsets = plan.offsets_address
        self.run.dims = ctypes.addressof(self.dims) if self._own_dims else plan.dims_address
        self.plan = plan

    def reset_dims(self, plan: Plan) -> None:
        """Forget the data-dependent dims of the last run."""
        ctypes.memmove(self.dims, plan.dims, ctypes.sizeof(self.dims))

    def message(self) -> str:
        """The error text that native code left."""
        return self.error.value.decode(errors="replace") or "no message"
