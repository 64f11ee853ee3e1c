"""Quantized nodes for the tests of kernels: one graph, one library, compared to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.codegen.compiled import Library
from tuili.codegen.targets import Target
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType, Value
from tuili.ops.infer import infer
from tuili.ops.interpret import run as interpret
from tuili.passes.pipeline import optimise
from tuili.tensors import Array, DType, Sym

Draw = np.random.default_rng


@dataclass(frozen=True, slots=True)
class Product:
    """A product of codes, and what is done with it."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    codes: Any = np.uint8  # of the input
    zero: int | None = 3
    weights: Any = np.int8
    extreme: bool = False  # all numbers at their limits: what saturating instructions get wrong
    rare: bool = False  # small weights but for a few pairs at their limits
    bias: bool = True
    residual: bool = False
    result: Any = np.uint8  # None: real numbers
    open_axes: tuple[int, ...] = ()
    late_zero: bool = False  # the zero point is an input
    late_scale: bool = False

    @property
    def op(self) -> str:
        """QMatMul for matrices of weights, else QConv."""
        return "QMatMul" if len(self.w) == 2 else "QConv"


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, *, extreme: bool) -> Array:
    """Numbers over the whole range of a type, or its limits alone."""
    limits = np.iinfo(dtype)
    if dtype is np.int16:
        limits = np.iinfo(np.uint8)
        values = rng.integers(-255, 256, shape)
        return np.where(values < 0, -255, 255).astype(dtype) if extreme else values.astype(dtype)
    values = rng.integers(limits.min, limits.max + 1, shape)
    if extreme:
        values = np.where(rng.random(shape) < 0.5, limits.min, limits.max)
    return values.astype(dtype)


class QuantizedCases:
    """Every product in one graph; `check(name)` compares one with its NumPy meaning."""

    def __init__(self, cases: dict[str, Product], target: Target) -> None:
        self.graph = Graph("cases")
        self.feeds: dict[str, Array] = {}
        self._outputs: dict[str, str] = {}
        for index, (name, case) in enumerate(cases.items()):
            output = self._add(f"c{index}", case)
            self._outputs[name] = output.name
            self.graph.set_outputs([*self.graph.outputs, output])
        infer(self.graph)
        self.want = interpret(self.graph, self.feeds)
        optimise(self.graph, block=target.block, on_pass=lambda name, graph: None)
        program = translate(self.graph, infer(self.graph), target)
        assert not program.host, [graph.nodes for graph in program.host]
        self.families = {label: name for label, (name, _) in program.families.items()}
        self.library = Library(program, target)
        self._got: dict[str, Array] = {}

    def run(self, threads: int = 1) -> dict[str, Array]:
        """The outputs of the library."""
        return self.library.run(self.feeds, threads)

    def check(self, name: str) -> None:
        """Compare one output to the bit."""
        self._got = self._got or self.run()
        output = self._outputs[name]
        np.testing.assert_array_equal(self._got[output], self.want[output])

    def _input(self, name: str, array: Array, open_axes: tuple[int, ...] = ()) -> Value:
        self.feeds[name] = array
        dims = [Sym(f"{name}_{a}") if a in open_axes else d for a, d in enumerate(array.shape)]
        return self.graph.add_input(name, TensorType(DType.of(array.dtype), tuple(dims)))

    def _add(self, name: str, case: Product) -> Value:
        rng, graph = Draw(len(name) + sum(case.x)), self.graph
        x = self._input(
            f"{name}_x", drawn(rng, case.x, case.codes, extreme=case.extreme), case.open_axes
        )
        weights = drawn(rng, case.w, case.weights, extreme=case.extreme)
        if case.rare:
            weights //= 3
            weights.reshape(-1)[17:19] = 127
            weights.reshape(-1)[-2:] = -128
            weights[:, :2] = np.where(weights[:, :2] > 38, 127, weights[:, :2])
        outputs = case.w[1] if case.op == "QMatMul" else case.w[0]
        zero: Value | None = None
        if case.zero is not None:
            array = np.array(case.zero, case.codes)
            zero = self._input(f"{name}_z", array) if case.late_zero else graph.add_constant(array)
        bias = rng.integers(-(2**20), 2**20, outputs).astype(np.int32) if case.bias else None
        depth = int(np.prod(case.w)) // outputs
        scale = (rng.uniform(0.5, 1.5, outputs) * 2e-2 / np.sqrt(depth)).astype(np.float32)
        inputs = [
            x,
            graph.add_constant(weights),
            zero,
            None if bias is None else graph.add_constant(bias),
            self._input(f"{name}_s", scale) if case.late_scale else graph.add_constant(scale),
        ]
        result = graph.add(case.op, inputs, case.attrs).output
        infer(graph)
        if case.residual:
            result = self._residual(name, case, result, rng)
        if case.result is not None:
            result = self._quantize(result, 1.0, 7, case.result)
        return result

    def _residual(self, name: str, case: Product, result: Value, rng: np.random.Generator) -> Value:
        """Codes of the result, decoded, plus decoded codes of the same shape, then Relu."""
        graph = self.graph
        codes = self._quantize(result, 1.0, 5, np.int8)
        shape = tuple(int(dim) for dim in result.shape if isinstance(dim, int))
        other = self._input(f"{name}_r", drawn(rng, shape, np.uint8, extreme=False))
        left = self._dequantize(codes, 0.37, 5, np.int8)
        right = self._dequantize(other, 0.61, 100, np.uint8)
        return graph.add("Relu", [graph.add("Add", [left, right]).output]).output

    def _quantize(self, value: Value, scale: float, zero: int, dtype: Any) -> Value:
        graph = self.graph
        inputs = [value, graph.add_constant(np.array(scale, np.float32))]
        inputs.append(graph.add_constant(np.array(zero, dtype)))
        return graph.add("QuantizeLinear", inputs).output

    def _dequantize(self, value: Value, scale: float, zero: int, dtype: Any) -> Value:
        graph = self.graph
        inputs = [value, graph.add_constant(np.array(scale, np.float32))]
        inputs.append(graph.add_constant(np.array(zero, dtype)))
        return graph.add("DequantizeLinear", inputs).output
