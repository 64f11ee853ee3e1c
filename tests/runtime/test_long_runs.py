"""A run function of thousands of calls is compiled plainly: gcc takes minutes otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tuili
from tuili import compiler
from tuili.codegen.toolchain import Toolchain, Unit


def test_a_long_run_function_is_compiled_plainly_and_answers_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> net (float[B, 4] x) => (float[B, 8] y)
    { a = Sin (x) y = Concat <axis = 1> (a, x) }"""
    proto = onnx.parser.parse_model(text)
    levels: list[tuple[str, ...]] = []
    build = Toolchain.build

    def watched(self: Toolchain, units: list[Unit], *rest: object) -> object:
        levels.append(tuple(unit.flags[0] for unit in units))
        return build(self, units, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Toolchain, "build", watched)
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    found = []
    for name, limit in (("short", 1_000_000), ("long", 100)):
        monkeypatch.setattr(compiler, "_LONG_RUN", limit)
        artifact = tuili.compile(proto, tmp_path / f"{name}.tuili")
        found.append(tuili.load(artifact.path).run({"x": x})["y"])
    np.testing.assert_array_equal(*found)
    assert [level[0] for level in levels] == ["-O1", "-O0"]
    assert set(levels[1][1:]) == {"-O3"}
