"""Packed weights that no kernel reads: which forms become others, and that the answer stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuili.ir import Graph, TensorType
from tuili.ops.contrib.weights import pack_bits, unpack_bits
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.quantized.weight_codes import plain_weight_codes
from tuili.tensors import Array, DType

RNG = np.random.default_rng(6)
DEPTH, WIDTH, BLOCK = 40, 5, 16
BY_BLOCK = np.arange(DEPTH) // BLOCK
ODD = np.where(BY_BLOCK == 1, 0, BY_BLOCK)  # no block belongs to the second scale
ORDERED = ["Gather", "com.microsoft::MatMulNBits"]


def codes(*shape: int) -> Array:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def product(op: str, constants: list[Array | None], attrs: dict[str, Any]) -> Graph:
    graph = Graph("product")
    x = graph.add_input("x", TensorType(DType.F32, (2, 3, attrs["K"])))
    values = [None if each is None else graph.add_constant(each) for each in constants]
    node = graph.add(f"com.microsoft::{op}", [x, *values], attrs, outputs=["y"])
    graph.set_outputs(node.outputs)
    return graph


def rewritten(graph: Graph) -> list[str]:
    """The operators after the pass, which must not have changed the answer."""
    contents, x = infer(graph), {"x": floats(*map(int, graph.inputs[0].shape))}
    before = run(graph, x)["y"]
    if plain_weight_codes(graph, contents):
        infer(graph)
        np.testing.assert_allclose(run(graph, x)["y"], before, rtol=1e-4, atol=1e-4)
    return [node.op for node in graph.nodes]


def nbits(groups: Array | None, bits: int = 4, bias: Array | None = None) -> Graph:
    blocks = -(-DEPTH // BLOCK)
    constants = [
        codes(WIDTH, blocks, BLOCK * bits // 8), floats(WIDTH, blocks),
        codes(WIDTH, -(-blocks * bits // 8)), groups, bias,
    ]  # fmt: skip
    attrs = {"K": DEPTH, "N": WIDTH, "block_size": BLOCK, "bits": bits}
    return product("MatMulNBits", constants, attrs)


@pytest.mark.parametrize(
    ("groups", "bits", "expected"),
    [
        (RNG.permutation(BY_BLOCK), 4, ORDERED),
        (RNG.permutation(BY_BLOCK), 2, ORDERED),
        (RNG.permutation(BY_BLOCK), 8, ORDERED),
        (RNG.permutation(BY_BLOCK), 3, ["MatMul"]),  # bytes are no whole number of codes
        (RNG.permutation(ODD), 4, ["MatMul"]),
        (None, 4, ["com.microsoft::MatMulNBits"]),
    ],
)
def test_an_order_of_k_is_put_into_x(groups: Array | None, bits: int, expected: list[str]) -> None:
    groups = None if groups is None else groups.astype(np.int32)
    assert rewritten(nbits(groups, bits, floats(WIDTH))) == expected


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("transposed", [0, 1])
def test_codes_of_bitsandbytes_become_numbers(kind: int, transposed: int) -> None:
    attrs = {"K": 32, "N": 32, "block_size": 16, "quant_type": kind, "transB": transposed}
    graph = product("MatMulBnb4", [codes(512), floats(64)], attrs)
    assert rewritten(graph) == ["MatMul"]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_packed_bits_come_back(bits: int) -> None:
    numbers = RNG.integers(0, 2**bits, (3, 16)).astype(np.uint8)
    packed = pack_bits(numbers, bits)
    assert packed.shape == (3, 2 * bits)
    np.testing.assert_array_equal(unpack_bits(packed, bits, 16), numbers)
