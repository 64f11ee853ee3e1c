"""How large the numbers of a body may become before they are codes."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.codegen.bounds import bound_of
from tuili.ir import Graph, TensorType
from tuili.tensors import DType

REAL, BYTES = TensorType(DType.F32, ()), TensorType(DType.U8, ())


def residual(*before: str) -> Graph:
    """x and codes of 0.25 each, added, through some operators, into codes of 0.5."""
    graph = Graph("body")
    x, codes = graph.add_input("x", REAL), graph.add_input("codes", BYTES)
    scales = [graph.add_constant(np.array(each, np.float32)) for each in (0.25, 0.5)]
    zero = graph.add_constant(np.array(3, np.uint8))
    real = graph.add("DequantizeLinear", [codes, scales[0], zero], types=[REAL]).output
    value = graph.add("Add", [x, real], types=[REAL]).output
    for op in before:
        value = graph.add(op, [value], types=[REAL]).output
    graph.set_outputs([graph.add("QuantizeLinear", [value, scales[1], zero], types=[BYTES]).output])
    return graph


@pytest.mark.parametrize(
    ("before", "x", "bound"),
    [
        ((), 10.0, (10 + 255 / 4) * 2),
        (("Relu",), 10.0, (10 + 255 / 4) * 2),
        (("Sigmoid",), np.inf, 2.0),
        (("Exp",), 10.0, np.inf),
        ((), np.inf, np.inf),
    ],
)
def test_codes_are_bounded_where_all_is_known(
    before: tuple[str, ...], x: float, bound: float
) -> None:
    assert bound_of(residual(*before), {0: x}, {}) == bound
