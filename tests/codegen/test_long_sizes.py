"""Sizes of very many operations are functions, and mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import tuili
from tuili.codegen.long_sizes import LongSizes

SHORT = "const int64_t e0 = tl_max(d_a, tl_floordiv(d_b, 2));"
TERMS = " + ".join(["d_a"] * 40)


def test_short_sizes_stay_as_they_are() -> None:
    sizes = LongSizes()
    assert sizes.called(SHORT) == SHORT
    assert sizes.definitions() == ""


def test_a_long_size_is_one_function_of_its_symbols_wherever_it_stands() -> None:
    sizes = LongSizes()
    long = f"tl_max(d_b, tl_floordiv({TERMS}, 2))"
    called = sizes.called(f"    k({long}, x);\n    {long};\n    k(f(y), {long});")
    inner = "tl_max(d_b, tl_size_0(d_a))"
    assert called == f"    k({inner}, x);\n    {inner};\n    k(f(y), {inner});"
    defined = sizes.definitions()
    assert "int64_t tl_size_0(int64_t d_a)\n" in defined
    assert f"return tl_safe_floordiv({TERMS}, 2);" in defined
    assert "tl_size_1" not in defined


def test_functions_stand_behind_those_that_they_call() -> None:
    sizes = LongSizes()
    inner = f"tl_floormod({TERMS}, 7)"
    sizes.called(f"y = tl_min({inner}, {' * '.join(['d_b'] * 60)});")
    defined = sizes.definitions()
    assert "return tl_min(tl_size_0(d_a), d_b" in defined
    assert defined.index("tl_size_0(int64_t d_a)") < defined.index("tl_size_1(")


def test_a_model_of_long_sizes_computes_what_it_says(tmp_path: Path) -> None:
    count = 7
    steps = [
        f"h{i} = Slice(p{i}, zero, most, zero, two) p{i + 1} = Concat<axis=0>(h{i}, p{i})"
        for i in range(count)
    ]
    text = (
        '<ir_version: 8, opset_import: ["": 17]> net (int64[n] x) => (int64[m] y) <int64[1] zero '
        "= {0}, int64[1] most = {10000}, int64[1] two = {2}> { found = NonZero(x)"
        f" p0 = Squeeze(found, zero) {' '.join(steps)} y = Neg(p{count}) }}"
    )
    artifact = tuili.compile(onnx.parser.parse_model(text), tmp_path / "long.tuili")
    assert "tl_size_0(" in next(artifact.path.rglob("*.c")).read_text()
    x = np.array([5, 0, 6, 7, 0, 1])
    want = np.flatnonzero(x)
    for _ in range(count):
        want = np.concatenate([want[::2], want])
    np.testing.assert_array_equal(tuili.load(artifact.path).run({"x": x})["y"], -want)
