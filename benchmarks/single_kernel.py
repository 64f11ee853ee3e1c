"""One node as one shared library: for the tests of kernels and for their timings."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.foreign import Request, chosen_target, is_foreign, run_foreign
from tuili.codegen.c_dims import c_dim
from tuili.codegen.compilers import find_compiler
from tuili.codegen.families import choose
from tuili.codegen.kernel import Context, physical_shape
from tuili.codegen.packing import block_channels
from tuili.codegen.prelude import prelude
from tuili.codegen.targets import Target, native_target
from tuili.ir import Graph, Node, block_of
from tuili.lower.program import Buffer, Call, Place, Pointer, Program
from tuili.ops.contents import Contents
from tuili.runtime.cpu import host_features
from tuili.tensors import Array, evaluate, symbols_of

FLAGS = (
    "-std=gnu11",
    "-fPIC",
    "-shared",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)


def this_target() -> Target:
    """The best target of this machine, or the one that the tests are to use."""
    return chosen_target() or native_target(host_features())


class SingleKernel:
    """The kernels of one node, compiled; call it with the node's data inputs."""

    def __init__(
        self,
        node: Node,
        target: Target,
        *,
        family: str = "",
        exact: bool = False,
        level: str = "-O3",
        command: Sequence[str] = (),
    ) -> None:
        self.node = node
        dims = [dim for value in node.inputs if value is not None for dim in value.shape]
        known = sorted({name for dim in dims for name in symbols_of(dim)})
        self.program = Program("test", tuple(known), len(known))
        self.ctx = Context(self.program, target, Contents(), exact)
        chosen = choose(node, self.ctx)
        assert family in ("", chosen.name), f"{chosen.name} was chosen, not {family}"
        self.family = chosen.name
        chosen.emit(node, self.ctx)
        self.source = self._print(target)
        command = command or find_compiler(target.machine).command
        self.path = _compile(self.source, (*command, level, *FLAGS, *target.flags))
        self.library = None if is_foreign(target) else ctypes.CDLL(str(self.path))

    def _print(self, target: Target) -> str:
        parts = [prelude(target).replace("TL_HIDDEN", "", 0)]
        calls = ["void run(uint8_t **buffers, int64_t *dims, uint8_t *scratch, int64_t parts) {"]
        calls.append("    int32_t shared_fault = 0; (void)shared_fault; (void)dims;")
        self.symbols = sorted(_symbols(self.program))
        calls += [
            f"    const int64_t {s} = dims[{i}]; (void){s};" for i, s in enumerate(self.symbols)
        ]
        self.buffers: list[Buffer] = []
        for index, call in enumerate(self.program.steps):
            name = f"{call.kernel.name}_{index}"
            parts += [f"#define {each} {each}_{index}" for each in ("support", "pad_borders")]
            parts.append(call.kernel.support)
            parts += [_signature(name, call), "{", "(void)begin, (void)end, (void)scratch;"]
            parts += [call.kernel.body, "}"]
            args = ", ".join(self._argument(call, i) for i in range(len(call.args)))
            grid = c_dim(call.grid)
            calls += [
                "    for (int64_t part = 0; part < parts; part++) {",
                f"        const int64_t grid = {grid};",
                "        const int64_t from = grid * part / parts, to = grid * (part + 1) / parts;",
                f"        if (from < to) {name}(from, to, scratch{', ' if args else ''}{args});",
                "    }",
            ]
        return "\n".join([*parts, *calls, "}", ""])

    def _argument(self, call: Call, index: int) -> str:
        arg = call.args[index]
        if isinstance(arg, Pointer):
            if arg.view.buffer not in self.buffers:
                self.buffers.append(arg.view.buffer)
            ctype = call.kernel.params[index].rsplit("*", 1)[0]
            offset = c_dim(arg.view.offset)
            return f"({ctype}*)(buffers[{self.buffers.index(arg.view.buffer)}] + {offset})"
        if isinstance(arg, str):
            return arg.replace("&shared->fault", "&shared_fault")
        return c_dim(arg)

    def bind(self, inputs: Mapping[str, Array], dims: Mapping[str, int] | None = None) -> None:
        """Lay the inputs out in memory; the padding lanes hold NaN."""
        values = dict(dims or {})
        self.dims = np.array([values[s] for s in self.symbols] or [0], np.int64)
        self.memory: list[Array] = []
        weights = {weight.buffer: weight.array for weight in self.program.weights}
        by_view = {self.ctx.views[v].buffer: v for v in self.ctx.views}
        for buffer in self.buffers:
            if buffer.place is Place.WEIGHT:
                self.memory.append(_aligned(np.ascontiguousarray(weights[buffer])))
                continue
            value = by_view.get(buffer)
            if value is not None and value.name in inputs:
                array = inputs[value.name]
                block = block_of(value.layout)
                self.memory.append(_aligned(_blocked(array, block) if block > 1 else array))
                continue
            size = int(evaluate(buffer.size, values))
            self.memory.append(_aligned(np.full(size, 0xFF, np.uint8)))
        scratch = max([int(evaluate(call.scratch, values)) for call in self.program.steps] + [64])
        self.scratch = _aligned(np.full(scratch, 0xFF, np.uint8))
        self.outputs = [self.buffers.index(self.ctx.views[v].buffer) for v in self.node.outputs]
        self.values = values
        self.pointers = (ctypes.c_void_p * len(self.memory))(*(m.ctypes.data for m in self.memory))

    def call(self, parts: int = 1) -> None:
        """Run the kernels, the grid cut into `parts`."""
        if self.library is None:
            request = Request().number(1).number(parts).blob(self.dims)
            request.number(self.scratch.nbytes).blobs(self.memory)
            for array, data in zip(self.memory, self._reply(request), strict=True):
                array[:] = np.frombuffer(data, np.uint8)
            return
        self.library.run(
            self.pointers,
            ctypes.c_void_p(self.dims.ctypes.data),
            ctypes.c_void_p(self.scratch.ctypes.data),
            ctypes.c_int64(parts),
        )

    def _reply(self, request: Request) -> list[bytes]:
        return run_foreign(self.ctx.target, self.path, request).blobs

    def results(self) -> list[Array]:
        """The outputs in plain layout."""
        found: list[Array] = []
        for value, index in zip(self.node.outputs, self.outputs, strict=True):
            shape = tuple(int(evaluate(d, self.values)) for d in physical_shape(value.tensor))
            plain = tuple(int(evaluate(d, self.values)) for d in value.shape)
            data = self.memory[index].view(value.dtype.numpy).reshape(shape)
            if block_of(value.layout) > 1:
                moved = np.moveaxis(data, -1, 2)
                data = moved.reshape(shape[0], -1, *shape[2:-1])[:, : plain[1]]
            found.append(data)
        return found

    def __call__(self, inputs: Mapping[str, Array], parts: int = 1, **dims: int) -> list[Array]:
        self.bind(inputs, dims)
        self.call(parts)
        return self.results()


def _signature(name: str, call: Call) -> str:
    params = ("int64_t begin", "int64_t end", "uint8_t *scratch", *call.kernel.params)
    return f"static void {name}({', '.join(params)})"


def single_node(graph: Graph) -> Node:
    """The only node of a graph."""
    (node,) = graph.nodes
    return node


def _symbols(program: Program) -> set[str]:
    found: set[str] = set()
    for call in program.steps:
        for dim in (call.grid, call.scratch, *(a for a in call.args if not isinstance(a, str))):
            if isinstance(dim, Pointer):
                found |= set(symbols_of(dim.view.offset))
                found |= set(symbols_of(dim.view.buffer.size))
            else:
                found |= set(symbols_of(dim))
    return found


def _blocked(array: Array, block: int) -> Array:
    blocked = block_channels(array, block)
    rest = array.shape[1] % block
    if rest:
        blocked[:, -1, ..., rest:] = np.nan
    return blocked


def _aligned(array: Array) -> Array:
    raw = np.empty(array.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64
    view = raw[start : start + array.nbytes]
    view[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return view


def _compile(source: str, command: Sequence[str]) -> Path:
    key = hashlib.sha256("\0".join([source, *command]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / "tuili-kernels"
    folder.mkdir(exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        text = folder / f"{key}.c"
        text.write_text(source, encoding="utf-8")
        unfinished = library.with_suffix(f".{id(source)}")
        result = subprocess.run(
            [*command, "-o", str(unfinished), str(text), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[:4000]
        unfinished.rename(library)
    return library
