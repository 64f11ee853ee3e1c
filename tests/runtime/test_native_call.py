"""The documented way to call a compiled model from C works as printed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.runtime.native_models import TWICE, build_library
from tuili.codegen.toolchain import Toolchain
from tuili.runtime.native import abi_header

PAGE = Path(__file__).parents[2] / "docs/reference/artifact.md"


def test_the_c_program_of_the_reference_page_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "main.c").write_text(program)
    (tmp_path / "tuili_abi.h").write_text(abi_header())
    library = build_library(TWICE, tmp_path / "libmodel.so")
    command = [*Toolchain.find().command, "-Wall", "-Werror", "-std=gnu11", "main.c", str(library)]
    subprocess.run([*command, "-o", "main"], cwd=tmp_path, check=True)
    run = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert run.stdout == "2 4 6\n8 10 12\n"
