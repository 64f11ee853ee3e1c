"""Which C compiler to call: `$CC`, the ones on the path, or the `ziglang` package.

For another machine than this one: `$CC` when it compiles for that machine, else a cross gcc on the
path (`aarch64-linux-gnu-gcc`), else `ziglang`, which compiles for all of them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from tuili.errors import ToolchainError, in_words

_TIMEOUT_S = 900
# The oldest compilers that know the vectors and processors that we print for, by what they say.
_OLDEST = {
    "gcc": (re.compile(r"^.*\) (\d+)\..*\n.*Free Software Foundation"), 11),
    "clang": (re.compile(r"^(?!Apple).*clang version (\d+)"), 13),
}
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True, slots=True)
class Compiler:
    """How to call a compiler, and what it calls itself."""

    command: tuple[str, ...]
    identity: str
    """Name, version and machine: other text means other objects from the same source."""
    is_zig: bool = False

    @property
    def is_gcc(self) -> bool:
        """Whether it is gcc, under whatever name."""
        return "Free Software Foundation" in self.identity

    @property
    def too_old(self) -> str:
        """What it is and what would do, when it is older than what we know to work."""
        for name, (version, oldest) in _OLDEST.items():
            found = version.search(self.identity)
            if found and int(found[1]) < oldest:
                return f"{name} {found[1]}, and {oldest} is the oldest that will do"
        return ""


def this_machine() -> str:
    """The machine of this host, as targets name it."""
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)


def find_compiler(machine: str | None = None) -> Compiler:
    """The compiler for a machine, by default this one; raises ToolchainError."""
    named, path = os.environ.get("CC", "").strip(), os.environ.get("PATH", "")
    return _find(machine or this_machine(), named, path)


@cache
def _find(machine: str, named: str, path: str) -> Compiler:
    tried: list[str] = []
    if named:
        compiler = _named(named, path)
        if compiler.too_old:
            raise ToolchainError(f"CC is {named!r}: {compiler.too_old}. Correct CC or unset it")
        if _fits(compiler, machine):
            return compiler
        tried.append(f"CC={named} is for another machine")
    for name in _names(machine):
        found = shutil.which(name, path=path)
        compiler = _identified((found,)) if found else None
        if compiler and _fits(compiler, machine) and not compiler.too_old:
            return compiler
        tried.append(f"{name} {_unusable(found, compiler)}")
    if find_spec("ziglang"):
        return _zig(machine)
    tried.append("ziglang is not installed")
    raise ToolchainError(
        f"no C compiler for {machine} found ({'; '.join(tried)}). Install {_wanted(machine)}, "
        "set CC to a compiler, or `pip install 'tuili[zig]'`"
    )


def _unusable(found: str | None, compiler: Compiler | None) -> str:
    """Why a compiler is passed over."""
    if not found:
        return "is not on the path"
    if not compiler:
        return "does not run"
    return f"is {compiler.too_old}" if compiler.too_old else "is for another machine"


def _names(machine: str) -> tuple[str, ...]:
    if machine == this_machine():
        return ("cc", "gcc", "clang")
    return (f"{machine}-linux-gnu-gcc", f"{machine}-linux-musl-gcc")


def _wanted(machine: str) -> str:
    return "gcc or clang" if machine == this_machine() else _names(machine)[0]


def _fits(compiler: Compiler, machine: str) -> bool:
    """Whether a compiler makes code for a machine; one that does not tell makes it for this one."""
    made_for = compiler.identity.rsplit("\n", 1)[-1].split("-")[0].lower()
    return _MACHINES.get(made_for, made_for or this_machine()) == machine


def _named(text: str, path: str) -> Compiler:
    """The compiler that `$CC` names; it may come with arguments, such as `ccache gcc`."""
    words = [text] if Path(text).is_file() else _words("CC", text)  # a path may have spaces
    found = shutil.which(words[0], path=path) if words else None
    if found is None:
        first = words[0] if words else text
        raise ToolchainError(
            f"CC is {text!r}, but {first!r} is no program on the path. Correct CC or unset it"
        )
    command = (str(Path(found).absolute()), *words[1:])  # it will run in another folder
    # `zig cc`, or `python -m ziglang cc`
    is_zig = any("zig" in Path(word).name for word in words)
    compiler = _identified(command, is_zig=is_zig)
    if compiler is None:
        raise ToolchainError(
            f"CC is {text!r}, but `{shlex.join(command)} --version` fails. Correct CC or unset it"
        )
    return compiler


def _zig(machine: str) -> Compiler:
    command = [sys.executable, "-m", "ziglang", "cc"]
    foreign = machine != this_machine()
    if foreign or platform.system() == "Linux":
        # Without a target zig tunes for this very machine. The old glibc is in every newer one.
        libc = "gnu.2.17" if foreign or platform.libc_ver()[0] == "glibc" else "musl"
        command += ["-target", f"{machine}-linux-{libc}"]
    compiler = _identified(command, is_zig=True)
    if compiler is None:
        raise ToolchainError(
            f"`{shlex.join(command)}` does not run: the package ziglang is damaged or does not "
            f"know the machine {machine!r}"
        )
    return compiler


def _identified(command: Sequence[str], *, is_zig: bool = False) -> Compiler | None:
    """The compiler that a command calls; None when it does not run."""
    version = run_command([*command, "--version"])
    if version.returncode or not version.stdout.strip():
        return None
    lines = [line for line in version.stdout.splitlines() if not line.startswith("InstalledDir")]
    # Of zig the target is in the command already, and it takes no -dumpmachine.
    machine = _zig_target(command) if is_zig else run_command([*command, "-dumpmachine"]).stdout
    return Compiler(tuple(command), "\n".join([*lines[:3], machine.strip()]), is_zig)


def _zig_target(command: Sequence[str]) -> str:
    return command[command.index("-target") + 1] if "-target" in command else ""


def extra_flags() -> tuple[str, ...]:
    """`$TUILI_CFLAGS`: flags that come after all others, such as those of a sanitizer."""
    return tuple(_words("TUILI_CFLAGS", os.environ.get("TUILI_CFLAGS", "")))


def _words(variable: str, text: str) -> list[str]:
    """The words of a variable of the environment, as a shell reads them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ToolchainError(
            f"{variable} is {text!r}, which no shell could read: {error}. Correct it or unset it"
        ) from None


class Commands:
    """The processes of one build; its end is theirs, and that of what they started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._is_over = False

    def run(
        self, command: Sequence[str], cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A finished process; one that could not start or end has a status as in a shell."""
        self._check()
        # Messages are quoted in errors and parsed: they must not depend on the user's language.
        environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
        if cwd is not None:
            environment["TMPDIR"] = str(cwd)  # what a compiler that is killed leaves goes with it
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                process_group=0,  # so that what it starts can be ended too
            )
        except OSError as error:
            return subprocess.CompletedProcess(command, 127, "", in_words(error))
        self._running.add(process)
        try:
            return self._finished(process, command)
        except BaseException:
            _end(process)
            raise
        finally:
            self._running.discard(process)

    def _finished(
        self, process: subprocess.Popen[str], command: Sequence[str]
    ) -> subprocess.CompletedProcess[str]:
        self._check()
        try:
            output, errors = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _end(process)
            return subprocess.CompletedProcess(command, 124, "", f"no result after {_TIMEOUT_S} s")
        self._check()
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._is_over = True
        for process in tuple(self._running):
            _end(process)

    def _check(self) -> None:
        if self._is_over:
            raise ToolchainError("the build was given up before the C compiler had ended")


def _end(process: subprocess.Popen[str]) -> None:
    if process.returncode is None:  # not yet waited for: the number is still its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_command(
    command: Sequence[str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One process by itself."""
    return Commands().run(command, cwd)
