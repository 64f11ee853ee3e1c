"""Matrix products: MatMul, Gemm, Einsum, Det and the integer forms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType, shape_text


def matmul_shape(site: Site) -> list[Result]:
    """Batch dims broadcast; rank 1 counts as a row on the left and a column on the right."""
    return [product_shape(site, list(site.shape(0)), list(site.shape(1)))]


def product_shape(site: Site, left: list[Dim], right: list[Dim]) -> list[Dim]:
    """The shape of a matrix product of two shapes."""
    if not left or not right:
        site.fail(f"shapes {shape_text(left)} and {shape_text(right)}: expected rank 1 or more")
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else []
    depth = right[-2] if len(right) > 1 else right[-1]
    site.same(left[-1], depth, "the last axis of A and the second last of B differ")
    return [*site.broadcast(left[:-2], right[:-2]), *rows, *columns]


def _wide(array: Array) -> Array:
    """Sums of real products are taken in f64: an oracle should not add errors of its own."""
    return array.astype(np.float64) if DType.of(array.dtype).is_float else array


def matmul(A: Array, B: Array, bias: Array | None = None) -> Array:
    """A @ B, plus a bias where a pass has put one."""
    product = np.matmul(_wide(A), _wide(B))
    return (product if bias is None else product + _wide(bias)).astype(A.dtype)


def gemm_shape(site: Site) -> list[Result]:
    """Rows of A' by columns of B'."""
    left, right = site.need_rank(0, 2), site.need_rank(1, 2)
    rows, depth = left[::-1] if site.attr("transA") else left
    inner, columns = right[::-1] if site.attr("transB") else right
    site.same(depth, inner, "the inner sizes of A and B differ")
    if site.has(2):
        broadcast = site.broadcast(site.shape(2), (rows, columns))
        if len(broadcast) > 2:
            site.fail(f"C has shape {shape_text(site.shape(2))}; it must broadcast to the product")
    return [(rows, columns)]


def gemm(
    A: Array,
    B: Array,
    C: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha * A' @ B' + beta * C (Gemm-13)."""
    product = _wide(A.T if transA else A) @ _wide(B.T if transB else B)
    if alpha != 1:
        product = product * product.dtype.type(alpha)
    if C is not None and beta != 0:
        product = product + (_wide(C) if beta == 1 else product.dtype.type(beta) * _wide(C))
    return product.astype(A.dtype)


# -- einsum --------------------------------------------------------------------------------


def _einsum_terms(site: Site) -> tuple[list[str], str]:
    equation = str(site.attr("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != site.num_inputs:
        site.fail(f"equation {equation!r} has {len(terms)} terms for {site.num_inputs} inputs")
    if not arrow:
        letters = sorted(set(left) - set(",."))
        right = "..." * ("..." in left) + "".join(x for x in letters if left.count(x) == 1)
    return terms, right


def _einsum_shape(site: Site) -> list[Result]:
    terms, output = _einsum_terms(site)
    sizes: dict[str, Dim] = {}
    rest: list[Dim] = []
    for index, term in enumerate(terms):
        shape = list(site.shape(index))
        before, dots, after = term.partition("...")
        hidden = len(shape) - len(before) - len(after)
        if hidden < 0 or (hidden and not dots):
            site.fail(f"term {term!r} does not fit shape {shape_text(shape)}")
        rest = site.broadcast(rest, shape[len(before) : len(before) + hidden])
        named = shape[: len(before)] + shape[len(before) + hidden :]
        for letter, dim in zip(before + after, named, strict=True):
            known = sizes.get(letter, 1)
            sizes[letter] = dim if known == 1 else site.same(known, dim, f"sizes of {letter!r}")
    before, dots, after = output.partition("...")
    for letter in before + after:
        if letter not in sizes or output.count(letter) > 1:
            what = "twice" if letter in sizes else "and no input"
            expected = "expected each axis once, out of those of the inputs"
            site.fail(f"the output {output!r} names axis {letter!r} {what}; {expected}")
    named_axes = [[sizes[letter] for letter in part] for part in (before, after)]
    return [[*named_axes[0], *(rest if dots else []), *named_axes[1]]]


def _einsum(*inputs: Array, equation: str) -> Array:
    product = np.einsum(equation.replace(" ", ""), *map(_wide, inputs), optimize=True)
    return product.astype(inputs[0].dtype)


# -- integers ------------------------------------------------------------------------------


def _shifted(array: Array, zero: Array | None, *, rows: bool) -> Array:
    wide = array.astype(np.int32)
    if zero is None:
        return wide
    offset = zero.astype(np.int32)
    return wide - (offset[:, None] if rows and offset.ndim == 1 and offset.size > 1 else offset)


def matmul_integer(
    A: Array, B: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    """The product of 8-bit matrices in i32 (MatMulInteger-10)."""
    left, right = _shifted(A, a_zero_point, rows=True), _shifted(B, b_zero_point, rows=False)
    # Sums of 8-bit products are whole numbers that f64 holds exactly, and f64 has a fast product.
    return np.matmul(left.astype(np.float64), right.astype(np.float64)).astype(np.int32)


def _det_shape(site: Site) -> list[Result]:
    *batch, rows, columns = site.shape(0)
    site.same(rows, columns, "a matrix is not square")
    return [tuple(batch)]


def _det(X: Array) -> Any:
    return np.linalg.det(_wide(X))


ROWS = (
    op("MatMul", "A B bias?", "Y", matmul_shape, matmul, allow="number"),
    op(
        "Gemm",
        "A B C?",
        "Y",
        gemm_shape,
        gemm,
        allow="number",
        attrs={"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    ),
    op("Einsum", "inputs*", "output", _einsum_shape, _einsum, attrs={"equation": REQUIRED}),
    op("Det", "X", "Y", _det_shape, _det, allow="float"),
    op(
        "MatMulInteger",
        "A:A B:B a_zero_point?:A b_zero_point?:B",
        "Y:i32",
        matmul_shape,
        matmul_integer,
        allow={"A": "byte", "B": "byte"},
    ),
)
