"""Generated libraries of another processor, run under qemu-user (Debian: qemu-user, a cross gcc).

`TUILI_TEST_TARGET` names the target that the tests of kernels use instead of this machine's best:
`make qemu` runs them for every target that qemu knows. It has no AVX-512.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from tuili.codegen.compilers import find_compiler, this_machine
from tuili.codegen.targets import Target, find_target
from tuili.errors import ToolchainError
from tuili.runtime.native import abi_header
from tuili.tensors import Array

TIMEOUT_S = 300
# The least processor of each target, so that an instruction beyond it stops the test.
EMULATORS: dict[str, tuple[str, ...]] = {
    "aarch64": ("qemu-aarch64", "-cpu", "cortex-a57", "-L", "/usr/aarch64-linux-gnu"),
    "aarch64-dotprod": ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"),
    "x86-64": ("qemu-x86_64", "-cpu", "qemu64"),
}


def chosen_target() -> Target | None:
    """The target that `TUILI_TEST_TARGET` names."""
    name = os.environ.get("TUILI_TEST_TARGET", "")
    return find_target(name) if name else None


def is_foreign(target: Target) -> bool:
    """Whether the tests run a target's code under qemu."""
    return target is chosen_target() or target.machine != this_machine()


def missing(target: Target) -> str:
    """Why code of a target cannot be run here; empty when it can."""
    emulator = EMULATORS.get(target.name)
    if emulator is None:
        return f"qemu-user does not run {target.name}"
    if not shutil.which(emulator[0]):
        return f"{emulator[0]} is not installed (Debian package qemu-user)"
    try:
        find_compiler(target.machine)
    except ToolchainError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    error: str
    blobs: list[bytes]


@dataclass(slots=True)
class Request:
    """The bytes of a request, see `foreign.c`."""

    parts: list[bytes] = field(default_factory=list[bytes])

    def number(self, value: int) -> Request:
        """Append a number."""
        self.parts.append(struct.pack("<q", value))
        return self

    def blob(self, array: Array) -> Request:
        """Append the bytes of an array."""
        data = np.ascontiguousarray(array).tobytes()
        self.number(len(data)).parts.append(data)
        return self

    def blobs(self, arrays: Sequence[Array]) -> Request:
        """Append a list of arrays."""
        self.number(len(arrays))
        for array in arrays:
            self.blob(array)
        return self

    def sizes(self, arrays: Sequence[Array]) -> Request:
        """Append a list of sizes."""
        self.number(len(arrays))
        for array in arrays:
            self.number(array.nbytes)
        return self


def _emulator(target: Target) -> tuple[str, ...]:
    """That of a target; of one written in plain C for another machine, that of the chosen one."""
    name, chosen = target.name, chosen_target()
    own = name in EMULATORS and find_target(name).machine == target.machine
    return EMULATORS[name if own or chosen is None else chosen.name]


def run_foreign(target: Target, library: Path, request: Request) -> Reply:
    """Run a library in a process of the target's machine."""
    with tempfile.TemporaryDirectory(prefix="tuili-foreign-") as folder:
        question, answer = Path(folder) / "request", Path(folder) / "reply"
        question.write_bytes(b"".join(request.parts))
        command = [*_emulator(target), str(_program(target.machine)), str(library)]
        done = subprocess.run(
            [*command, str(question), str(answer)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{target.name}: status {done.returncode}: {done.stderr}"
        return _parsed(answer.read_bytes())


def _parsed(data: bytes) -> Reply:
    at = 0

    def number() -> int:
        nonlocal at
        at += 8
        return int(struct.unpack_from("<q", data, at - 8)[0])

    def blob() -> bytes:
        nonlocal at
        size = number()
        at += size
        return data[at - size : at]

    def blobs() -> Iterator[bytes]:
        for _ in range(number()):
            yield blob()

    status, error = number(), blob().decode()
    return Reply(status, error, list(blobs()))


@cache
def _program(machine: str) -> Path:
    """The program that loads libraries, built once per process."""
    folder = Path(tempfile.mkdtemp(prefix="tuili-foreign-"))
    program = folder / f"foreign-{machine}"
    source = Path(__file__).with_suffix(".c")
    (folder / "tuili_abi.h").write_text(abi_header(), encoding="utf-8")
    command = [*find_compiler(machine).command, "-O1", f"-I{folder}", "-o", str(program)]
    subprocess.run([*command, str(source), "-ldl", "-lm", "-pthread"], check=True)
    return program
