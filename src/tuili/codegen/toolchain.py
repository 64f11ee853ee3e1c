"""The C compiler: finds one, compiles units in parallel, links a shared library.

Objects are cached by the hash of text, flags and compiler, so that only what changed is compiled;
the same units give a byte-identical library on every run and in every folder.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeAlias

from tuili.codegen.cache import ObjectCache, cache_folder, content_key, usable
from tuili.codegen.compilers import Commands, Compiler, extra_flags, find_compiler, run_command
from tuili.errors import ToolchainError
from tuili.runtime.cpu import available_threads

Progress: TypeAlias = "Callable[[int, int], None]"

# Raise when the same text and flags begin to mean another object.
_OBJECT_FORMAT = "1"
_SHOWN_LINES = 12
_LOOK_S = 0.2
_LAST_S = 20.0  # for threads to tidy up when a build is given up

# What every unit is compiled with; a unit's own flags come later and win.
_COMPILE_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",  # nothing reads errno; lets sqrt be one instruction
    "-fno-trapping-math",  # nothing reads exception flags; lets selects be vectors
    "-fno-ident",  # no compiler version in the object
    "-Werror=implicit-function-declaration",
)
# Of -O3. Where rows of neighbouring items lie side by side, gcc reads those of another item before
# a loop and writes them back after it: the results of another thread, put back to what they were.
_GCC_FLAGS = ("-fno-predictive-commoning",)
_LINK_FLAGS = (
    "-shared",
    "-Wl,--build-id=none",
    "-Wl,--strip-debug",  # zig's own objects name folders of this machine
    "-Wl,-z,defs",  # a missing kernel is found here, not when the model is loaded
    "-Wl,-z,noexecstack",
    "-Wl,-z,relro",
    "-Wl,-z,now",
)
_LIBRARIES = ("-lm", "-pthread")


@dataclass(frozen=True, slots=True)
class Unit:
    """One C file; `flags` are added to the toolchain's own."""

    name: str
    text: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A C compiler with the flags and the cache around it."""

    compiler: Compiler

    @classmethod
    def find(cls, machine: str | None = None) -> Toolchain:
        """The toolchain for a machine, by default this one; raises ToolchainError."""
        return cls(find_compiler(machine))

    @property
    def command(self) -> tuple[str, ...]:
        """How to call the compiler."""
        return self.compiler.command

    def compile_command(self, unit: Unit, source: str, target: str) -> list[str]:
        """The command that compiles a unit."""
        own = _GCC_FLAGS if self.compiler.is_gcc else ()
        flags = [*_COMPILE_FLAGS, *unit.flags, *own, *extra_flags()]
        if self.compiler.is_zig:
            flags = [_zig_flag(flag) for flag in flags]
        return [*self.command, *flags, "-c", source, "-o", target]

    def knows(self, flags: Sequence[str]) -> bool:
        """Whether the compiler takes these flags: older ones lack those of newer processors."""
        unit = Unit("flags", "", ("-fsyntax-only", "-x", "c", *flags))
        return run_command(self.compile_command(unit, os.devnull, os.devnull)).returncode == 0

    def object_key(self, unit: Unit) -> str:
        """The name of a unit's object in the cache."""
        command = self.compile_command(unit, f"{unit.name}.c", "")
        return content_key((_OBJECT_FORMAT, self.compiler.identity, *command, "\n", unit.text))

    def build(
        self,
        units: Sequence[Unit],
        output: Path,
        progress: Progress | None = None,
        *,
        link_flags: Sequence[str] = (),
    ) -> Path:
        """Compile the units and link them to `output`, which appears whole or not at all."""
        cache = ObjectCache(cache_folder() / "objects", checked=".o")
        with usable(cache.folder):
            objects = self._compile_all(units, cache, progress or _silent)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".link-") as scratch:
            library = Path(scratch) / "library.so"
            self._link(objects, library, link_flags)
            library.replace(output)
        cache.prune_at_times()
        return output

    def _compile_all(
        self, units: Sequence[Unit], cache: ObjectCache, progress: Progress
    ) -> list[Path]:
        """The objects in the order of the units.

        Threads tell through a queue of C: a signal that comes while `concurrent.futures` waits may
        leave its locks held, and everybody waiting for ever.
        """
        _check_names(units)
        left, told = deque(enumerate(units)), SimpleQueue[tuple[int, Path | BaseException]]()
        commands, made = Commands(), dict[int, Path]()
        count = max(1, min(len(units), available_threads()))
        words = (left, told, cache, commands)
        threads = [Thread(target=self._work, args=words, daemon=True) for _ in range(count)]
        try:
            with commands:
                for thread in threads:
                    thread.start()
                while len(made) < len(units):
                    try:
                        number, outcome = told.get(timeout=_LOOK_S)
                    except Empty:  # a signal that came just before the wait shows now
                        continue
                    # One failure is enough: what has not ended is not worth its time.
                    if isinstance(outcome, BaseException):
                        raise outcome
                    made[number] = outcome
                    progress(len(made), len(units))
        finally:
            left.clear()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_LAST_S)
        return [made[number] for number in range(len(units))]

    def _work(
        self,
        left: deque[tuple[int, Unit]],
        told: SimpleQueue[tuple[int, Path | BaseException]],
        cache: ObjectCache,
        commands: Commands,
    ) -> None:
        """Compile units while there are any, and tell of each, until one fails."""
        while left:
            try:
                number, unit = left.popleft()
            except IndexError:  # another thread has taken the last one
                return
            try:
                told.put((number, self.compile(unit, cache, commands)))
            except BaseException as error:  # noqa: BLE001 - raised by who waits for it
                told.put((number, error))
                return

    def compile(self, unit: Unit, cache: ObjectCache, commands: Commands) -> Path:
        """The object of a unit, from the cache or freshly compiled."""
        key = self.object_key(unit)
        if found := cache.find(key, ".o"):
            return found
        with cache.making(key, ".o") as scratch:
            if scratch is None:
                return cache.path(key, ".o")
            source = scratch / f"{unit.name}.c"
            source.write_text(unit.text, encoding="utf-8")
            command = self.compile_command(unit, source.name, "unit.o")
            # Run inside of the scratch folder: no path of this machine reaches the object.
            result = commands.run(command, scratch)
            made = scratch / "unit.o"
            if result.returncode or not made.exists():
                kept = cache.keep(key, ".failed.c", source)
                raise ToolchainError(_failure(unit.name, command, result, kept))
            return cache.keep(key, ".o", made)

    def _link(self, objects: Sequence[Path], library: Path, flags: Sequence[str]) -> None:
        command = [*self.command, *_link_flags(), *flags, *extra_flags(), "-o", library.name]
        listing = library.with_name("objects.rsp")
        # By names of our own: each linker has its own rules for quotes and spaces in a path.
        names = [f"{number}.o" for number in range(len(objects))]
        for name, path in zip(names, objects, strict=True):
            library.with_name(name).symlink_to(path.resolve())
        listing.write_text("\n".join(names), encoding="utf-8")
        result = run_command([*command, f"@{listing.name}", *_LIBRARIES], cwd=library.parent)
        if result.returncode:
            raise ToolchainError(_failure("the library", [*command, *_LIBRARIES], result, None))


def _link_flags() -> tuple[str, ...]:
    return ("-shared",) if platform.system() == "Darwin" else _LINK_FLAGS


def _silent(done: int, total: int) -> None:
    """The progress of a build that nobody watches."""


def _check_names(units: Sequence[Unit]) -> None:
    names = [unit.name for unit in units]
    wrong = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name)]
    assert units, "a library needs a unit"
    assert not wrong, f"names of units become file names: {wrong}"


def _zig_flag(flag: str) -> str:
    """Zig spells processors with underscores."""
    return (
        flag.replace("-", "_").replace("_march=", "-march=") if flag.startswith("-march=") else flag
    )


def _end(status: int, what: str) -> str:
    """How a compiler ended that made nothing usable."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name} on {what}; most often memory runs out"
    return f"failed on {what} with status {status}" if status else f"wrote nothing for {what}"


def _failure(
    what: str,
    command: Sequence[str],
    result: subprocess.CompletedProcess[str],
    source: Path | None,
) -> str:
    """What failed, the first error with its place, the command, and the text that was refused."""
    lines = result.stderr.splitlines()
    telling = (i for i, line in enumerate(lines) if re.search("error:|undefined|cannot find", line))
    first = next(telling, 0)
    shown = lines[first : first + _SHOWN_LINES] or ["(it printed nothing)"]
    return "\n".join(
        [
            f"the C compiler {_end(result.returncode, what)}:",
            *(f"  {line}" for line in shown),
            f"command: {shlex.join(command)}",
            *([f"source: {source}"] if source else []),
        ]
    )
