"""The target of a machine is the best one that it runs and its compiler knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuili.codegen.targets import TARGETS, Target, native_target
from tuili.codegen.toolchain import Toolchain
from tuili.errors import InvalidArgument

SAPPHIRE_RAPIDS = frozenset(TARGETS["x86-64-amx"].requires)
OLD_GCC = """#!/bin/sh
for word in "$@"; do
    case "$word" in -mamx*) echo "unrecognized command-line option '$word'" >&2; exit 1 ;; esac
done
exec cc "$@"
"""


@pytest.mark.parametrize(
    ("unknown", "target"),
    [
        ("", "x86-64-amx"),
        ("-mamx-tile", "x86-64-avx512-bf16"),
        ("-mavx512bf16", "x86-64-avx512-vnni"),
        ("-march=x86-64-v4", "x86-64-avx2"),
    ],
)
def test_flags_that_a_compiler_lacks_cost_only_their_target(unknown: str, target: str) -> None:
    def compiles(candidate: Target) -> bool:
        return unknown not in candidate.flags

    assert native_target(SAPPHIRE_RAPIDS, "x86_64", compiles).name == target


def test_the_least_target_needs_no_question() -> None:
    assert native_target(frozenset(), "x86_64", lambda target: False).name == "x86-64"


def test_a_machine_of_no_target_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no target for machine 's390x'"):
        native_target(frozenset(), "s390x")


def test_a_compiler_tells_which_flags_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "gcc-10"
    compiler.write_text(OLD_GCC)
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert Toolchain.find().knows(("-O2",))
    assert not Toolchain.find().knows(("-mamx-tile",))
