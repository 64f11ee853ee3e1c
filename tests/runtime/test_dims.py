"""Binding: symbols of the inputs from their shapes, in any order and form; refusals say why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.native_models import spec
from tuili.errors import InvalidArgument
from tuili.runtime.dims import bind_dims, output_shape

Shape = tuple[int, ...]

# inputs' shapes, arrays' shapes, symbols
GOOD: list[tuple[list[list[int | str]], list[Shape], dict[str, int]]] = [
    ([], [], {}),
    ([[]], [()], {}),
    ([[2, 3]], [(2, 3)], {}),
    ([["N", 3, "N"]], [(4, 3, 4)], {"N": 4}),
    ([["N"], ["N", "M"]], [(2,), (2, 5)], {"N": 2, "M": 5}),
    ([["N", "2*N + 1"]], [(3, 7)], {"N": 3}),
    ([["2*N + 1"]], [(7,)], {"N": 3}),
    ([["N + M"], ["M"]], [(7,), (3,)], {"N": 4, "M": 3}),
    ([["N - M + K"], ["K + M"], ["K"]], [(7,), (3,), (1,)], {"N": 8, "M": 2, "K": 1}),
    ([["(H + 3) // 4", "H"]], [(2, 5)], {"H": 5}),
    ([["N*M"], ["N"]], [(6,), (2,)], {"N": 2, "M": 3}),
    ([["N", 0]], [(0, 0)], {"N": 0}),
]


@pytest.mark.parametrize(("inputs", "shapes", "bound"), GOOD)
def test_symbols_are_found(
    inputs: list[list[int | str]], shapes: list[Shape], bound: dict[str, int]
) -> None:
    specs = [spec(f"x{i}", "f32", *dims) for i, dims in enumerate(inputs)]
    assert bind_dims(specs, shapes, "here") == bound


BAD: list[tuple[list[list[int | str]], list[Shape], str]] = [
    ([[2]], [(2, 2)], r"input 'x0' has shape \[2, 2\] of rank 2, expected \[2\] of rank 1"),
    ([[2, 3]], [(2, 4)], r"axis 1 is 4, expected 3$"),
    (
        [["N"], ["N", "M"]],
        [(2,), (3, 3)],
        r"\[3, 3\], expected \[N, M\]: axis 0 is 3, expected 2 \(N is 2 from x0\[0\]\)",
    ),
    ([["N", "2*N + 1"]], [(3, 8)], r"axis 1 is 8, expected 7 \(N is 3 from x0\[0\]\)"),
    ([["2*N"]], [(7,)], r"axis 0 is 7, expected 6"),
    ([["N*N"]], [(9,)], r"axis 0 is 9, which does not tell the symbols of N\*N"),
    ([["N + M"]], [(9,)], "does not tell the symbols of M|N"),
    ([["N + 5"]], [(3,)], "dim N would be -2, from the shape of x0"),
    ([["N", "M"]], [(0, 1 << 60)], "expected at most 17592186044416 elements"),
]


@pytest.mark.parametrize(("inputs", "shapes", "message"), BAD)
def test_shapes_that_do_not_fit_are_refused(
    inputs: list[list[int | str]], shapes: list[Shape], message: str
) -> None:
    specs = [spec(f"x{i}", "f32", *dims) for i, dims in enumerate(inputs)]
    with pytest.raises(InvalidArgument, match=f"here: .*{message}"):
        bind_dims(specs, shapes, "here")


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 9), st.integers(0, 9))
def test_linear_dims_are_solved(n: int, m: int, factor: int, offset: int) -> None:
    specs = [spec("x", "f32", f"{factor}*N + M + {offset}"), spec("y", "f32", f"{factor}*M")]
    shapes = [(factor * n + m + offset,), (factor * m,)]
    assert bind_dims(specs, shapes, "here") == {"N": n, "M": m}


def test_output_shapes_follow() -> None:
    assert output_shape(spec("y", "f32", "N", "(N + 1) // 2", 4), {"N": 5}, "here") == (5, 3, 4)
    with pytest.raises(InvalidArgument, match=r"would be \[-1\] for N = 1: an input is too small"):
        output_shape(spec("y", "f32", "N - 2"), {"N": 1}, "here")
