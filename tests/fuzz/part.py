"""Part: one small random graph under construction, which runs while it grows.

Every node is evaluated by its NumPy meaning as soon as it is added, so that the next one can be
chosen to fit: shapes are concrete, indices are in range, numbers stay finite. What the arrays of
float values are is followed too: `exact` ones have the same bits in any order of arithmetic, and
only those may meet an operator that jumps (Floor, ArgMax, a comparison).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tuili.errors import TuiliError
from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.infer import infer
from tuili.ops.interpret import run, run_node
from tuili.tensors import Array, DType, Sym

MOST_ELEMENTS = 6000
SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 17)
FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)
INTS = (DType.I64, DType.I32, DType.I8, DType.U8, DType.I16, DType.U16, DType.U32, DType.U64)
FLOAT_BITS = {DType.F32: 24, DType.F64: 53, DType.F16: 11, DType.BF16: 8}


class Discard(Exception):
    """The step does not fit what there is; another one is tried."""


class Source(Protocol):
    """Where choices come from: a seeded generator, or hypothesis, which shrinks them."""

    def below(self, count: int) -> int:
        """A number from 0 to count - 1; 0 is the simplest choice."""
        ...


@dataclass
class Leaf:
    """An input or constant: how its elements are drawn."""

    dtype: DType
    low: float
    high: float
    grain: float  # elements are multiples of it
    seed: int

    def draw(self, shape: Sequence[int]) -> Array:
        return np.asarray(self._drawn(shape), self.dtype.numpy)

    def _drawn(self, shape: Sequence[int]) -> Any:
        rng = np.random.default_rng(self.seed)
        if self.dtype is DType.BOOL:
            return rng.integers(0, 2, shape).astype(bool)
        low, high = int(np.ceil(self.low / self.grain)), int(np.floor(self.high / self.grain))
        drawn = rng.integers(low, high, shape, endpoint=True)
        if self.dtype.is_int:
            return (drawn * int(self.grain)).astype(self.dtype.numpy)
        return np.asarray(drawn * self.grain, np.float64).astype(self.dtype.numpy)


@dataclass
class Part:
    """A graph, the arrays of its values, and what is known of them."""

    source: Source
    prefix: str = ""
    graph: Graph = field(default_factory=lambda: Graph("fuzz"))
    arrays: dict[Value, Array] = field(default_factory=dict)
    leaves: dict[Value, Leaf] = field(default_factory=dict)
    fixed: set[Value] = field(default_factory=set)  # inputs whose elements other choices rest on
    inexact: set[Value] = field(default_factory=set)
    symbols: dict[str, int] = field(default_factory=dict)
    opened: float = 0.0  # how likely an axis of an input is symbolic

    # -- choices ---------------------------------------------------------------------------

    def below(self, count: int) -> int:
        return self.source.below(count)

    def one(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        return self.below(100) >= 100 - percent

    def shape(self, least: int = 0, most: int = 4) -> tuple[int, ...]:
        """A random shape; now and then with an empty axis."""
        rank = least + self.below(most - least + 1)
        dims = [self.one(SIZES) for _ in range(rank)]
        if dims and self.chance(3):
            dims[self.below(rank)] = 0
        while np.prod(dims) > MOST_ELEMENTS:
            dims[int(np.argmax(dims))] = 2
        return tuple(dims)

    def partner(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts with another."""
        kept = [1 if self.chance(20) else dim for dim in shape]
        if kept and self.chance(25):
            kept = kept[self.below(len(kept) + 1) :]
        elif len(kept) < 4 and self.chance(15):
            kept = [1 + self.below(3), *kept]
        return tuple(kept)

    def axis(self, rank: int) -> int:
        if rank == 0:
            raise Discard
        found = self.below(rank)
        return found - rank if self.chance(40) else found

    def axes(self, rank: int, least: int = 0) -> list[int]:
        """Some axes, each once, in any order and counted from either end."""
        picked = [axis for axis in range(rank) if self.chance(50)]
        while len(picked) < min(least, rank):
            picked = sorted({*picked, self.below(rank)})
        if self.chance(20):
            picked.reverse()
        return [axis - rank if self.chance(30) else axis for axis in picked]

    # -- values ----------------------------------------------------------------------------

    def leaf(  # one parameter per thing a recipe may fix
        self,
        dtype: DType,
        shape: Sequence[int],
        low: float = -2,
        high: float = 2,
        *,
        constant: int = 30,
        grain: float = 0.25,
        sealed: bool = False,
    ) -> Value:
        """A new input, or in `constant` percent of the cases a constant."""
        if dtype.is_unsigned_int:
            low, high = 0, max(high - low, 0)
        if dtype.is_int:
            grain, low, high = 1, np.ceil(low), np.floor(high)
        how = Leaf(dtype, low, high, grain, self.below(1000))
        array = how.draw(shape)
        if self.chance(constant):
            return self.constant(array)
        value = self.graph.add_input(
            self.prefix + f"x{len(self.graph.inputs)}",
            TensorType(dtype, tuple(shape) if sealed else self._declared(shape)),
        )
        self.arrays[value], self.leaves[value] = array, how
        return value

    def _declared(self, shape: Sequence[int]) -> tuple[Any, ...]:
        return tuple(self._open(size) for size in shape)

    def _open(self, size: int) -> Any:
        if size == 0 or self.below(100) >= self.opened * 100:
            return size
        name = f"{self.prefix}d{size}" + ("b" if size == 1 and self.chance(50) else "")
        self.symbols[name] = size
        return Sym(name)

    def constant(self, array: Any) -> Value:
        found = np.asarray(array)
        value = self.graph.add_constant(found, self.prefix + "c")
        self.arrays[value] = found
        return value

    def given(self, array: Any, dynamic: int = 10) -> Value:
        """A constant that operators take apart (axes, sizes); sometimes an input."""
        if not self.chance(dynamic):
            return self.constant(array)
        found = np.asarray(array)
        name = self.prefix + f"x{len(self.graph.inputs)}"
        value = self.graph.add_input(name, TensorType(DType.of(found.dtype), found.shape))
        self.arrays[value] = found
        self.fixed.add(value)
        return value

    def ints(self, numbers: Sequence[int], dynamic: int = 10) -> Value:
        return self.given(np.array(numbers, np.int64).reshape(len(numbers)), dynamic)

    def pick(
        self,
        dtypes: Sequence[DType] = (DType.F32,),
        rank: Callable[[int], bool] | None = None,
        *,
        exact: bool = False,
        low: float | None = None,
        high: float | None = None,
        fresh: int = 25,
        fits: Callable[[Value], bool] | None = None,
    ) -> Value:
        """A value of some type, rank and range; a new input when there is none."""

        def suits(value: Value) -> bool:
            array = self.arrays[value]
            return (
                DType.of(array.dtype) in dtypes
                and (rank is None or rank(array.ndim))
                and not (exact and value in self.inexact)
                and (fits is None or fits(value))
                and self._within(array, low, high)
            )

        found = [value for value in self.arrays if suits(value)]
        if found and not self.chance(fresh):
            return found[-1 - self.below(len(found))]
        if fits is not None:
            raise Discard
        ranks = [number for number in range(5) if rank is None or rank(number)]
        if not ranks:
            raise Discard
        number = self.one(ranks[::-1] if self.chance(50) else ranks)
        dtype = self.one(dtypes)
        return self.leaf(
            dtype,
            self.shape(number, number),
            -2 if low is None else low,
            2 if high is None else high,
            constant=10,
        )

    @staticmethod
    def _within(array: Array, low: float | None, high: float | None) -> bool:
        if array.dtype == bool or (low is None and high is None):
            return True
        wide = array.astype(np.float64)
        return (low is None or bool((wide >= low).all())) and (
            high is None or bool((wide <= high).all())
        )

    def of(self, value: Value) -> Array:
        return self.arrays[value]

    def dtype(self, value: Value) -> DType:
        return DType.of(self.arrays[value].dtype)

    # -- nodes -----------------------------------------------------------------------------

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Any] | None = None,
        *,
        outputs: int = 1,
        exact: bool = False,
        jumps: bool = False,
    ) -> tuple[Value, ...]:
        """Add a node and run it; `exact` when equal inputs give equal bits in any order."""
        given = [value for value in inputs if value is not None]
        loose = any(value in self.inexact for value in given)
        if jumps and loose:
            raise Discard
        names = [f"{self.prefix}v{len(self.graph.nodes)}_{index}" for index in range(outputs)]
        node = self.graph.add(op, inputs, attrs, outputs=names)
        try:
            found = self._run(node)
            results = [np.asarray(array) for array in found[:outputs]]
            for array in results:
                _check_size(array)
        except (TuiliError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            self.graph.remove(node)
            raise Discard(str(error)) from error
        except Discard:
            self.graph.remove(node)
            raise
        for value, array in zip(node.outputs, results, strict=True):
            self.arrays[value] = array
            value.type = TensorType(DType.of(array.dtype), None)
            if (
                DType.of(array.dtype).is_float and (loose or not exact or not _is_tame(array))
            ) or loose:
                self.inexact.add(value)
        return node.outputs

    def _run(self, node: Node) -> list[Any]:
        if not node.graphs():
            inputs = [None if value is None else self.arrays[value] for value in node.inputs]
            return run_node(node, inputs)
        infer(self.graph)  # a loop without rounds makes results of the inferred shape
        self.graph.set_outputs(node.outputs)
        feeds = {value.name: self.arrays[value] for value in self.graph.inputs}
        found = list(run(self.graph, feeds).values())
        self.graph.set_outputs(())
        return found

    def replay(
        self, feeds: Mapping[Value, Array], noise: float = 0, seed: int = 0
    ) -> dict[Value, Array]:
        """All arrays for other inputs; `noise` moves what is not exact by that relative amount."""
        rng = np.random.default_rng(seed)
        arrays = {v: feeds.get(v, a) for v, a in self.arrays.items() if v.producer is None}
        for node in self.graph.nodes:
            if node.graphs():
                found = self._rerun(node, feeds)
            else:
                inputs = [None if v is None else arrays[v] for v in node.inputs]
                found = run_node(node, inputs)
            for value, array in zip(node.outputs, found, strict=False):
                result = np.asarray(array)
                loose = noise and self._rounds(node, value) and DType.of(result.dtype).is_float
                arrays[value] = _noisy(result, noise, rng) if loose else result
        return arrays

    def _rounds(self, node: Node, value: Value) -> bool:
        """Whether roundings may go another way; Winograd has some where the sums are exact."""
        return value in self.inexact or (node.op == "Conv" and self.of(value).dtype.kind == "f")

    def _rerun(self, node: Node, feeds: Mapping[Value, Array]) -> list[Any]:
        before = self.graph.outputs
        self.graph.set_outputs(node.outputs)
        named = {v.name: feeds.get(v, self.arrays[v]) for v in self.graph.inputs}
        found = list(run(self.graph, named).values())
        self.graph.set_outputs(before)
        return found


def _noisy(array: Array, noise: float, rng: np.random.Generator) -> Array:
    bits = FLOAT_BITS[DType.of(array.dtype)]
    amount = max(noise, 2.0 ** (1 - bits))
    wide = array.astype(np.float64)
    return (wide * (1 + amount * rng.uniform(-1, 1, wide.shape))).astype(array.dtype)


def _check_size(array: Array) -> None:
    if array.size > MOST_ELEMENTS or array.ndim > 6:
        raise Discard("too large")
    if DType.of(array.dtype).is_float:
        wide = array.astype(np.float64)
        if not np.isfinite(wide).all() or (wide.size and np.abs(wide).max() > 1e4):
            raise Discard("not finite or too far from 1")


def _is_tame(array: Array) -> bool:
    """Whether sums and products of such numbers have no rounding, for a while."""
    dtype = DType.of(array.dtype)
    reach = {DType.F32: 8, DType.F64: 16}.get(dtype, 0)
    wide = array.astype(np.float64)
    if reach == 0:  # 16-bit floats keep only what they held at first
        reach = 2
    scaled = wide * 2.0**reach
    return bool((scaled == np.rint(scaled)).all() and (np.abs(wide) <= 2.0**reach).all())
