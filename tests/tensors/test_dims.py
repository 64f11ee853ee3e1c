"""Symbolic dims: canonical text, exact division, evaluation and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidArgument, ParseError
from tuili.tensors import (
    Dim,
    Sym,
    broadcast_dim,
    ceil_div,
    dim_max,
    dim_min,
    evaluate,
    floor_div,
    floor_mod,
    parse_dim,
    substitute,
    symbols_of,
)
from tuili.tensors import dims as dims_module

H, N = Sym("H"), Sym("N")

TEXTS = [
    ((H + 3) // 4 * 4, "4*((H + 3) // 4)"),
    (((H - 1) // 2 + 1 - 1) // 2, "(H - 1) // 4"),
    (N * 3 * H * 2, "6*H*N"),
    (2 * H // 2, "H"),
    ((H * 32) // H, "32"),
    (H - H, "0"),
    (1 - H, "1 - H"),
    (dim_max(H, H + 1), "H + 1"),
    (dim_min(H, 3), "min(3, H)"),
    ((4 * H + 3) % 2, "1"),
    (H * N // N, "H"),
    (ceil_div(H, 16), "(H + 15) // 16"),
]


@pytest.mark.parametrize(("dim", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_a_dim_prints_in_canonical_form(dim: Dim, text: str) -> None:
    assert str(dim) == text


def dims() -> st.SearchStrategy[Dim]:
    leaves = st.one_of(st.integers(-9, 9), st.sampled_from([H, N]))

    def grow(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        pairs = st.tuples(inner, inner)
        positive = st.tuples(inner, st.integers(1, 9))
        return st.one_of(
            pairs.map(lambda p: p[0] + p[1]),
            pairs.map(lambda p: p[0] - p[1]),
            pairs.map(lambda p: p[0] * p[1]),
            positive.map(lambda p: floor_div(*p)),
            positive.map(lambda p: floor_mod(*p)),
            pairs.map(lambda p: dim_max(*p)),
            pairs.map(lambda p: dim_min(*p)),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@given(dims())
def test_printing_and_parsing_gives_the_same_dim(dim: Dim) -> None:
    assert parse_dim(str(dim)) == dim


@given(dims(), dims(), st.integers(-20, 20), st.integers(-20, 20))
def test_arithmetic_on_dims_is_arithmetic_on_their_values(
    left: Dim, right: Dim, h: int, n: int
) -> None:
    env = {"H": h, "N": n}
    a, b = evaluate(left, env), evaluate(right, env)
    assert evaluate(left + right, env) == a + b
    assert evaluate(left * right - left, env) == a * b - a
    assert evaluate(dim_max(left, right), env) == max(a, b)
    assert evaluate(floor_div(left, 3), env) == a // 3
    assert evaluate(floor_mod(left, 4), env) == a % 4


@given(dims())
def test_a_known_dim_has_no_symbols(dim: Dim) -> None:
    assert symbols_of(dim) or isinstance(dim, int)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(3, 3, 3), (1, H, H), (H, 1, H), (H, H, H), (3, H, 3), (3, 4, None), (H, N, dim_max(H, N))],
)
def test_dims_broadcast(left: Dim, right: Dim, expected: Dim | None) -> None:
    assert broadcast_dim(left, right) == expected


@pytest.mark.parametrize("text", ["H +", "H ** 2", "f(H)", "1.5", "'x'", "", "H.x", "(" * 500])
def test_text_that_is_no_dim_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="line 1, column"):
        parse_dim(text)


def test_a_symbol_without_a_value_is_named() -> None:
    with pytest.raises(InvalidArgument, match="dim H \\+ N needs a value for H"):
        evaluate(H + N, {"N": 1})


def test_an_operation_in_several_places_is_substituted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    divided: list[Dim] = []

    def counted(left: Dim, right: Dim) -> Dim:
        divided.append(left)
        return floor_div(left, right)

    monkeypatch.setitem(dims_module._OPERATIONS, "//", counted)
    third = H // 3
    dim = dim_max(third * N, third + 5) + 2 * third
    assert substitute(dim, {"H": 10, "N": N}) == dim_max(3 * N, 8) + 6
    assert divided == [10]


def test_the_text_of_a_dim_is_made_once() -> None:
    dim = dim_max(H // 3, N) + 1
    first, second = str(dim), str(dim)
    assert first is second


def test_division_by_a_dim_that_is_zero_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="divides by zero"):
        evaluate(floor_div(H, N), {"H": 4, "N": 0})
