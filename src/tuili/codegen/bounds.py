"""How large the numbers of an elementwise body may become: small ones are stored with less ado."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.tensors import Array, DType

CODES_SPAN = 255.0  # between a code of 8 bits and a zero point
_BYTES = (DType.U8, DType.I8)

Bound: TypeAlias = Callable[["Value | None"], float]


def bound_of(body: Graph, inputs: Mapping[int, float], known: Mapping[int, Array]) -> float:
    """The largest magnitude of the codes that a body ends in before they are cut; or infinity.

    `inputs` are the bounds of some of its inputs; `known` are the arrays of constant ones.
    """
    constants = {value: value.constant for value in body.constants.values()}
    constants |= {body.inputs[index]: array for index, array in known.items()}
    bounds = {value: _largest(array) for value, array in constants.items() if array is not None}
    bounds |= {body.inputs[index]: bound for index, bound in inputs.items()}

    def of(value: Value | None) -> float:
        return np.inf if value is None else bounds.get(value, np.inf)

    for node in body.nodes[:-1]:
        rule = _RULES.get(node.op)
        bounds[node.output] = np.inf if rule is None else rule(node, of)
    last = body.nodes[-1]
    scale = constants.get(last.required(1))
    return np.inf if scale is None else of(last.required(0)) / float(np.abs(scale).min())


def _largest(array: Array) -> float:
    return float(np.abs(array.astype(np.float64)).max(initial=0))


def _sum(node: Node, of: Bound) -> float:
    return of(node.required(0)) + of(node.required(1))


def _product(node: Node, of: Bound) -> float:
    return of(node.required(0)) * of(node.required(1))


def _same(node: Node, of: Bound) -> float:
    return of(node.required(0))


def _codes(node: Node, of: Bound) -> float:
    return CODES_SPAN if node.output.dtype in _BYTES else np.inf


def _reals(node: Node, of: Bound) -> float:
    return CODES_SPAN * of(node.required(1)) if node.required(0).dtype in _BYTES else np.inf


def _one(node: Node, of: Bound) -> float:
    return 1.0


_RULES: dict[str, Callable[[Node, Bound], float]] = {
    "Add": _sum, "Sub": _sum, "Mul": _product, "Relu": _same, "Neg": _same, "Abs": _same,
    "QuantizeLinear": _codes, "DequantizeLinear": _reals,
    "Sigmoid": _one, "HardSigmoid": _one, "Tanh": _one,
}  # fmt: skip
