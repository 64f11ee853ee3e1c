"""Vectors of narrow numbers are widened whole: no compiler takes them apart one by one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.codegen.compiled import HERE
from tuili.codegen.compilers import run_command
from tuili.codegen.half_vectors import half_vectors
from tuili.codegen.prelude import prelude
from tuili.codegen.targets import Target
from tuili.codegen.toolchain import Toolchain, Unit

LOADS = {
    "u8": "uint8_t",
    "i8": "int8_t",
    "bf16": "uint16_t",
    "f16": "uint16_t",
    "u16": "uint16_t",
    "i16": "int16_t",
}
ONE_BY_ONE = re.compile(r"\bv?pinsr[bwdq]\b|\bmovz[bw]l\b|\bmovs[bw]l\b")
WIDE = [target for target in HERE if target.machine == "x86_64" and target.lanes >= 8]


@pytest.mark.parametrize("dtype", LOADS)
@pytest.mark.parametrize("target", WIDE, ids=lambda target: target.name)
def test_a_vector_is_widened_whole(target: Target, dtype: str, tmp_path: Path) -> None:
    text = f"vf widened(const {LOADS[dtype]} *p) {{ return v_load_{dtype}(p); }}\n"
    source = prelude(target) + half_vectors(target) + text
    (tmp_path / "load.c").write_text(source)
    unit = Unit("load", source, ("-O3", *target.flags, "-S"))
    done = run_command(Toolchain.find().compile_command(unit, "load.c", "load.s"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not ONE_BY_ONE.search((tmp_path / "load.s").read_text())
