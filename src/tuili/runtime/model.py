"""Model: a loaded artifact that answers.

Theory of operation. What depends on the shapes of the inputs alone (dims, offsets of buffers,
shapes of outputs) is a `Plan`, made once per combination of shapes and kept in a bounded cache.
What a run writes to (arena, argument arrays, error text) is a `Context`; runs at the same time take
different contexts from a free list, so that no lock is held while native code runs. A run of known
shapes is: look up the plan, take a context, write addresses into it, call `tuili_run`. Python's
share of that is about a microsecond; whoever changes `run` or `_execute` should measure it.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from tuili.artifact import Artifact
from tuili.errors import InvalidArgument, InvalidArtifact, Unavailable, Unsupported
from tuili.limits import Limits
from tuili.runtime.arrays import NATIVE_FLAGS, address_of, adopt
from tuili.runtime.bound import BoundRun, check_bound
from tuili.runtime.context import Context
from tuili.runtime.cpu import available_threads
from tuili.runtime.dims import bind_dims, output_shape
from tuili.runtime.feeds import native_feeds, native_results
from tuili.runtime.library import Library
from tuili.runtime.memory import usable_bytes
from tuili.runtime.plan import Plan, PlanCache, Shapes
from tuili.runtime.pool import shared_pool
from tuili.tensors import Array, DType, TensorSpec, shape_text, symbols_of

_MAX_OFFSETS = 1 << 24
_ndarray = np.ndarray
_empty = np.empty


class HostSteps(Protocol):
    """What runs the nodes of a model that have no native code."""

    function: Any  # a `HOST_FUNCTION`
    passes_objects: bool  # whether some of what they pass on are Python objects


class Model:
    """A compiled model in memory. Calls from several threads at once are safe."""

    def __init__(
        self,
        artifact: Artifact,
        library: Library,
        threads: int,
        host: HostSteps | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.artifact = artifact
        self.name = artifact.name
        self.path = artifact.path
        self.threads = threads
        self.inputs: list[TensorSpec] = list(artifact.inputs)
        self.outputs: list[TensorSpec] = list(artifact.outputs)
        self._where = f"model {self.name!r}"
        self._native_run = library.run
        weights = np.frombuffer(artifact.weights.map(), np.uint8)
        self._keeps: tuple[Library, Array] | None = (library, weights)  # None: closed
        self._pool = shared_pool(library, threads)
        self._symbols = artifact.manifest.symbols
        self._num_offsets = _checked_offsets(library)
        self._num_inputs = len(self.inputs)
        self._signature = [(spec.name, spec.dtype.numpy) for spec in self.inputs]
        bound = {name for spec in self.inputs for dim in spec.shape for name in symbols_of(dim)}
        self._data_symbols = frozenset(self._symbols) - bound
        self._cache = PlanCache()
        self._plans = self._cache.plans
        self._contexts: list[Context] = []
        self._all_contexts: weakref.WeakSet[Context] = weakref.WeakSet()  # those that run, too
        self._max_idle = 2 * available_threads()
        self._lock = threading.Lock()
        self._host = host  # kept: native code holds its address
        self.limits = limits or Limits.from_environment()
        self.again: Callable[[], Model] | None = None  # loads it once more, in any process

    @property
    def decided_by_data(self) -> bool:
        """Whether the sizes of some values follow from the numbers in others.

        They are counted first and written then: nobody may change the inputs in between.
        """
        return bool(self._data_symbols)

    # -- running -----------------------------------------------------------------------------

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs, by name.

        Contiguous arrays are not copied. Raises InvalidArgument for a wrong name, dtype or shape.
        """
        arrays = self._gather(feeds)
        plan = self._plan(tuple([array.shape for array in arrays]))
        return self._execute(arrays, plan, self._room_for(plan), self.threads)

    def run_on(self, feeds: Mapping[str, Array], threads: int) -> dict[str, Array]:
        """`run` on up to so many threads, the calling one included, and no more than it has."""
        arrays = self._gather(feeds)
        plan = self._plan(tuple([array.shape for array in arrays]))
        return self._execute(arrays, plan, self._room_for(plan), min(threads, self.threads))

    def _room_for(self, plan: Plan) -> dict[str, Array | None]:
        """Memory for the outputs whose shapes are known."""
        results: dict[str, Array | None] = {}
        try:
            for name, shape, dtype in plan.outputs:
                results[name] = None if shape is None else _empty(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise self._too_large(error) from None
        return results

    def run_into(
        self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """`run`, with the given arrays filled instead of new ones where `outputs` names them."""
        arrays = self._gather(feeds)
        plan = self._plan(tuple([array.shape for array in arrays]))
        results = native_results(plan, outputs, arrays, self._where)
        return self._execute(arrays, plan, with_room(plan, results), self.threads)

    def bind(
        self, feeds: Mapping[str, Array], outputs: Mapping[str, Array] | None = None
    ) -> BoundRun:
        """A run over these very arrays, again and again, without Python's share of `run`.

        Outputs that are not given are made once. Raises InvalidArgument for arrays that cannot be
        used in place, and Unsupported for models whose shapes depend on the data.
        """
        arrays = self._gather(feeds)
        plan = self._plan(tuple([array.shape for array in arrays]))
        check_bound(plan, self.inputs, arrays, feeds, self._where)
        results = with_room(plan, native_results(plan, outputs or {}, arrays, self._where))
        context = self._new_context()
        self._bind(context, plan)
        made = {name: array for name, array in results.items() if array is not None}
        return BoundRun(self._native_run, context, arrays, made, self._where)

    def _gather(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The arrays in the order of the inputs, as native code reads them."""
        arrays: list[Array] = []
        try:
            for name, dtype in self._signature:
                array = feeds[name]
                if (
                    type(array) is not _ndarray  # a subclass or a scalar is laid out otherwise
                    or array.dtype is not dtype
                    or array.flags.num & NATIVE_FLAGS != NATIVE_FLAGS
                ):
                    break
                arrays.append(array)
        except (LookupError, TypeError):
            arrays.clear()  # the other path says what is wrong
        if len(arrays) != self._num_inputs or len(feeds) != self._num_inputs:
            return native_feeds(self.inputs, feeds, self._where)
        return arrays

    def _execute(
        self, arrays: list[Array], plan: Plan, results: dict[str, Array | None], threads: int
    ) -> dict[str, Array]:
        contexts = self._contexts
        try:
            context = contexts.pop()
        except IndexError:
            context = self._new_context()
        if context.plan is not plan:
            self._bind(context, plan)
        if context.threads != threads:
            context.use_threads(threads)
        pointers, index = context.inputs, 0
        for array in arrays:
            pointers[index] = address_of(array)
            index += 1  # noqa: SIM113 - enumerate takes longer
        pointers, index = context.outputs, 0
        for array in results.values():
            pointers[index] = None if array is None else address_of(array)
            index += 1  # noqa: SIM113
        if plan.depends_on_data:
            context.reset_dims(plan)
        status = self._native_run(context.address)
        if plan.depends_on_data:
            self._adopt_outputs(context, plan, results, failed=status != 0)
        message = context.message() if status else ""
        if len(contexts) < self._max_idle:
            contexts.append(context)
        if status:
            raise InvalidArgument(f"{self._where}: the run failed: {message}")
        return results  # pyright: ignore[reportReturnType] - every output is there now

    def _adopt_outputs(
        self, context: Context, plan: Plan, results: dict[str, Array | None], *, failed: bool
    ) -> None:
        """Take over what the run allocated, also when it failed after that."""
        free = context.library.release
        env = {**plan.env, **dict(zip(self._symbols, context.dims, strict=False))}
        for index, spec in enumerate(self.outputs):
            address = context.outputs[index]
            if results[spec.name] is not None:
                continue
            if failed:
                if address is not None:
                    free(address)
                continue
            shape, dtype = output_shape(spec, env, self._where), spec.dtype.numpy
            # Nothing is allocated for an output without elements.
            results[spec.name] = (
                np.empty(shape, dtype) if address is None else adopt(address, shape, dtype, free)
            )

    # -- plans and contexts ------------------------------------------------------------------

    def _plan(self, shapes: Shapes) -> Plan:
        plan = self._plans.get(shapes)
        if plan is None:
            return self._make_plan(shapes)
        plan.used = True
        return plan

    def _make_plan(self, shapes: Shapes) -> Plan:
        env = bind_dims(self.inputs, shapes, self._where)
        plan = Plan(self._symbols, self._num_offsets, env)
        plan.depends_on_data = bool(self._data_symbols)
        for spec in self.outputs:
            if spec.is_object:
                plan.outputs.append((spec.name, (), DType.I64.numpy))
                continue
            depends = any(symbols_of(dim) & self._data_symbols for dim in spec.shape)
            shape = None if depends else output_shape(spec, env, self._where)
            plan.outputs.append((spec.name, shape, spec.dtype.numpy))
        context = self._new_context()
        context.run.dims = plan.dims_address
        context.run.offsets = plan.offsets_address
        plan.arena_bytes = context.library.plan(context.address)
        if plan.arena_bytes < 0:
            raise InvalidArgument(
                f"{self._where}: no memory plan for {_shapes_text(self.inputs, shapes)}: "
                f"{context.message()}"
            )
        with self._lock:
            self._cache.add(shapes, plan)
        return plan

    def _new_context(self) -> Context:
        if self._keeps is None:
            raise Unavailable(f"{self._where} is closed")
        sizes = len(self.inputs), len(self.outputs), len(self._symbols)
        context = Context(*self._keeps, *sizes, own_dims=bool(self._data_symbols))
        with self._lock:
            self._all_contexts.add(context)
        context.run.pool = self._pool
        context.use_threads(self.threads)
        context.run.most_rounds = self.limits.loop_rounds
        context.run.most_loop_ns = int(self.limits.loop_seconds * 1e9)
        context.run.most_bytes = self.limits.data_bytes or usable_bytes() // 4 * 3
        if self._host is not None:
            context.run.host = ctypes.cast(self._host.function, ctypes.c_void_p).value or 0
            context.run.host_context = context.address
        return context

    def _bind(self, context: Context, plan: Plan) -> None:
        try:
            context.bind(plan)
        except MemoryError as error:
            raise self._too_large(error) from None

    def _too_large(self, error: Exception) -> InvalidArgument:
        return InvalidArgument(f"{self._where}: inputs too large for this machine: {error}")

    @property
    def held_bytes(self) -> int:
        """Memory beside the mapped weights: what runs up to now have taken for intermediates."""
        with self._lock:
            return sum(context.arena.held_bytes for context in self._all_contexts)

    # -- life --------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the memory back. Runs in flight finish; later ones raise Unavailable.

        The last run, or the last array that the model allocated, unloads the code.
        """
        with self._lock:
            self._max_idle = 0
            self._keeps = None
            self._plans.clear()
            self._contexts.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        """Pickled, copied or sent to another process it is loaded again, from the same path."""
        if self.again is None:
            raise Unsupported(f"{self._where} was not loaded from a path: it cannot be pickled")
        return self.again, ()

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<Model {self.name!r}: ({inputs}) -> ({outputs})>"


def with_room(plan: Plan, results: dict[str, Array | None]) -> dict[str, Array | None]:
    """The results, with memory for those that are not given and whose shape is known."""
    for name, shape, dtype in plan.outputs:
        if results[name] is None and shape is not None:
            results[name] = _empty(shape, dtype)
    return results


def _checked_offsets(library: Library) -> int:
    found = library.num_offsets()
    if not 0 <= found <= _MAX_OFFSETS:
        raise InvalidArtifact(
            f"{library.where}: the library asks for {found} offsets, expected 0 to {_MAX_OFFSETS}; "
            "compile the model again"
        )
    return found


def _shapes_text(inputs: Sequence[TensorSpec], shapes: Shapes) -> str:
    pairs = zip(inputs, shapes, strict=True)
    return ", ".join(f"{spec.name} {shape_text(shape)}" for spec, shape in pairs) or "no inputs"
