"""Compiles small graphs to libraries and runs them beside the NumPy meaning."""

from __future__ import annotations

import copy
import ctypes
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.foreign import Request, chosen_target, is_foreign, run_foreign
from tuili.codegen.emit import emit
from tuili.codegen.targets import TARGETS, Target
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType
from tuili.lower.program import Program
from tuili.ops.infer import infer
from tuili.ops.interpret import run as interpret
from tuili.runtime.cpu import host_features
from tuili.tensors import Array, DType, evaluate, parse_shape


def one_per(key: Callable[[Target], object], targets: Iterable[Target]) -> list[Target]:
    """The first of those targets that are alike."""
    found: dict[object, Target] = {}
    for target in targets:
        found.setdefault(key(target), target)
    return list(found.values())


RUNNABLE = [target for target in TARGETS.values() if target.machine == "x86_64"]
RUNNABLE = [target for target in RUNNABLE if host_features().issuperset(target.requires)]
if (_chosen := chosen_target()) is not None:
    RUNNABLE = [_chosen]
# What a target has for codes and halves changes nothing in the C of other kernels.
HERE = one_per(lambda target: target.lanes, RUNNABLE)
BEST = HERE[0]


class _Run(ctypes.Structure):
    _fields_ = (
        ("inputs", ctypes.POINTER(ctypes.c_void_p)),
        ("outputs", ctypes.POINTER(ctypes.c_void_p)),
        ("dims", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("error", ctypes.c_char_p),
        ("error_size", ctypes.c_int64),
        ("host", ctypes.c_void_p),
        ("host_context", ctypes.c_void_p),
        ("most_rounds", ctypes.c_int64),
        ("most_loop_ns", ctypes.c_int64),
        ("most_bytes", ctypes.c_int64),
    )


def _aligned(size: int, fill: int = 0) -> Array:
    raw = np.full(size + 128, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class Library:
    """A compiled program."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program = program
        self.units = emit(program, target).units
        flags = ("-O3", "-ffp-contract=fast", *target.flags)
        units = [Unit(unit.name, unit.text, flags) for unit in self.units]
        self._target = target
        folder = tempfile.mkdtemp(prefix="tuili-test-")
        weakref.finalize(self, shutil.rmtree, folder)
        self._path = Path(folder) / "model.so"
        Toolchain.find(target.machine).build(units, self._path)
        if is_foreign(target):
            return
        self._library = ctypes.CDLL(str(self._path))
        self._library.tuili_num_offsets.restype = ctypes.c_int64
        self._library.tuili_plan.restype = ctypes.c_int64
        self._library.tuili_pool_create.restype = ctypes.c_void_p

    @property
    def text(self) -> str:
        """All generated C."""
        return "\n".join(unit.text for unit in self.units)

    def run(self, feeds: Mapping[str, Array], threads: int = 1) -> dict[str, Array]:
        """The outputs for these inputs."""
        program = self.program
        symbols: dict[str, int] = {}
        for spec in program.inputs:
            for dim, size in zip(spec.shape, feeds[spec.name].shape, strict=True):
                if not isinstance(dim, int) and dim.symbol is not None:
                    symbols[dim.symbol] = size
        dims = np.array([symbols[name] for name in program.symbols] or [0], np.int64)
        inputs = [
            np.ascontiguousarray(feeds[spec.name], spec.dtype.numpy) for spec in program.inputs
        ]
        outputs = [
            np.full([evaluate(dim, symbols) for dim in spec.shape], 99).astype(spec.dtype.numpy)
            for spec in program.outputs
        ]
        weights = _aligned(sum(weight.array.nbytes + 64 for weight in program.weights) + 64)
        for weight in program.weights:
            at, size = weight.buffer.offset, weight.array.nbytes
            weights[at : at + size] = np.frombuffer(weight.array.tobytes(), np.uint8)
        if is_foreign(self._target):
            self._run_foreign([dims, weights], inputs, outputs, threads)
            return {spec.name: array for spec, array in zip(program.outputs, outputs, strict=True)}
        offsets = np.zeros(max(int(self._library.tuili_num_offsets()), 1), np.int64)
        error = ctypes.create_string_buffer(1000)
        run = _Run(
            _pointers(inputs), _pointers(outputs), dims.ctypes.data, weights.ctypes.data, None,
            offsets.ctypes.data, None, threads, ctypes.cast(error, ctypes.c_char_p), 1000,
        )  # fmt: skip
        if threads > 1:
            run.pool = self._library.tuili_pool_create(threads)
        size = int(self._library.tuili_plan(ctypes.byref(run)))
        arena = _aligned(size + 64, fill=0xFF)  # NaN everywhere
        run.arena = arena.ctypes.data
        if self._library.tuili_run(ctypes.byref(run)):
            raise RuntimeError(error.value.decode())
        return {spec.name: array for spec, array in zip(program.outputs, outputs, strict=True)}

    def _run_foreign(
        self, own: Sequence[Array], inputs: Sequence[Array], outputs: Sequence[Array], threads: int
    ) -> None:
        request = Request().number(0).number(threads)
        for array in own:
            request.blob(array)
        reply = run_foreign(self._target, self._path, request.blobs(inputs).sizes(outputs))
        if reply.status:
            raise RuntimeError(reply.error)
        for array, data in zip(outputs, reply.blobs, strict=True):
            array[...] = np.frombuffer(data, array.dtype).reshape(array.shape)


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))


@dataclass
class Case:
    """One node. Arrays are inputs, `Const` constants; `dims` are symbolic shapes by input."""

    op: str
    inputs: Sequence[Any]
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dims: Mapping[int, Sequence[int | str]] = field(default_factory=dict[int, Any])
    outputs: int = 1
    layouts: Sequence[int] = ()  # inputs that arrive in the target's blocked layout
    blocked: bool = False  # the result is in the target's blocked layout
    tolerance: float = 4e-6
    name: str = ""


@dataclass
class Const:
    """An input that is known at compile time."""

    array: Array


class Cases:
    """Many nodes in one library; `check(name)` compares one with its NumPy meaning."""

    def __init__(self, cases: Mapping[str, Case], target: Target = BEST, threads: int = 1) -> None:
        self.cases = dict(cases)
        self.graph = Graph("cases")
        self.feeds: dict[str, Array] = {}
        self._outputs: dict[str, list[str]] = {}
        for index, (name, case) in enumerate(self.cases.items()):
            self._add(index, name, case, target)
        contents = infer(self.graph)
        for value in (value for value in self.graph.defined() if value.name.endswith("_blocked")):
            value.type = value.tensor.with_layout(target.layout)
        self.library = Library(translate(self.graph, contents, target), target)
        self.got = self.library.run(self.feeds, threads)
        with np.errstate(all="ignore"):
            self.want = interpret(self.graph, self.feeds)

    def _add(self, index: int, name: str, case: Case, target: Target) -> None:
        values: list[Any] = []
        for slot, item in enumerate(case.inputs):
            if item is None:
                values.append(None)
            elif isinstance(item, Const):
                values.append(self.graph.add_constant(item.array, f"c{index}_{slot}"))
            else:
                values.append(self._input(f"c{index}_{slot}", item, case.dims.get(slot)))
        for slot in case.layouts:
            reorder = self.graph.add(
                "Reorder", [values[slot]], {"layout": target.layout},
                outputs=[f"c{index}_{slot}_blocked"],
            )  # fmt: skip
            values[slot] = reorder.output
        ending = "_blocked" if case.blocked else ""
        names = [f"c{index}_y{out}{ending}" for out in range(case.outputs)]
        made = list(self.graph.add(case.op, values, case.attrs, outputs=names, name=name).outputs)
        if case.blocked:
            made = [
                self.graph.add(
                    "Reorder", [value], {"layout": ""}, outputs=[f"c{index}_p{out}"]
                ).output
                for out, value in enumerate(made)
            ]
        self._outputs[name] = [value.name for value in made]
        self.graph.set_outputs([*self.graph.outputs, *made])

    def _input(self, name: str, array: Array, dims: Sequence[int | str] | None) -> Any:
        shape = array.shape if dims is None else parse_shape([_own(name, dim) for dim in dims])
        self.feeds[name] = array
        return self.graph.add_input(name, TensorType(DType.of(array.dtype), tuple(shape)))

    def on(self, threads: int) -> Cases:
        """The same library, run by so many threads."""
        other = copy.copy(self)
        other.got = self.library.run(self.feeds, threads)
        return other

    def check(self, name: str) -> None:
        """Compare every output of a case with its meaning."""
        tolerance = self.cases[name].tolerance
        for output in self._outputs[name]:
            got, want = self.got[output], np.asarray(self.want[output])
            assert got.shape == want.shape
            if DType.of(want.dtype).is_float:
                got, want = got.astype(np.float64), want.astype(np.float64)
                np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(got, want)


def _own(name: str, dim: int | str) -> int | str:
    """Symbols are per case: `N` of one case has nothing to do with `N` of another."""
    return f"{name.split('_', maxsplit=1)[0]}{dim}" if isinstance(dim, str) else dim
