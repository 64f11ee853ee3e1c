"""The C compiler: found, cached, deterministic, safe to call at once, clear when it fails."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from tuili.codegen.cache import ObjectCache, cache_folder, content_key, locked
from tuili.codegen.compilers import Compiler
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.errors import ToolchainError

ADD = Unit("add", "int twice(int); int add_twice(int a, int b) { return a + twice(b); }\n")
TWICE = Unit("twice", "int twice(int a) { return 2 * a; }\n")
OPEN = ("-fvisibility=default",)
UNITS = [Unit(unit.name, unit.text, OPEN) for unit in (ADD, TWICE)]


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUILI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def objects(cache: Path) -> list[Path]:
    return sorted(cache.glob("objects/??/*.o"))


def test_units_become_a_library_that_runs(tmp_path: Path) -> None:
    library = Toolchain.find().build(UNITS, tmp_path / "deep" / "sum.so")
    assert ctypes.CDLL(str(library)).add_twice(1, 20) == 41


@pytest.mark.parametrize("left", [b"", b"\x7fELF and then nothing"])
def test_objects_that_were_damaged_are_made_again(
    left: bytes, tmp_path: Path, fresh_cache: Path
) -> None:
    """A machine that lost its power leaves empty ones, of which a linker makes a library."""
    Toolchain.find().build(UNITS, tmp_path / "a.so")
    for path in objects(fresh_cache):
        path.write_bytes(left)
    library = Toolchain.find().build(UNITS, tmp_path / "b.so")
    assert ctypes.CDLL(str(library)).add_twice(1, 20) == 41


def test_cc_may_lie_in_a_folder_with_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my tools").mkdir()
    path = fake_compiler(tmp_path / "my tools" / "cc", "x86_64")
    monkeypatch.setenv("CC", str(path))
    assert Toolchain.find().command == (str(path),)


def test_progress_counts_every_unit(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    Toolchain.find().build(UNITS, tmp_path / "a.so", lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


def test_an_unchanged_unit_is_not_compiled_again(tmp_path: Path, fresh_cache: Path) -> None:
    toolchain = Toolchain.find()
    toolchain.build(UNITS, tmp_path / "a.so")
    first = {path: path.stat().st_ino for path in objects(fresh_cache)}
    changed = Unit("add", UNITS[0].text + "\n", OPEN)
    toolchain.build([changed, UNITS[1]], tmp_path / "b.so")
    second = {path: path.stat().st_ino for path in objects(fresh_cache)}
    assert len(first) == 2
    assert len(second) == 3
    assert first.items() <= second.items()


def test_the_same_input_gives_the_same_bytes_in_another_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    for place in ("one", "another"):
        monkeypatch.setenv("TUILI_CACHE", str(tmp_path / place))
        made.append(Toolchain.find().build(UNITS, tmp_path / place / "x.so").read_bytes())
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in made[0]


def test_the_key_tells_text_flags_name_and_compiler_apart() -> None:
    toolchain = Toolchain.find()
    keys = {
        toolchain.object_key(TWICE),
        toolchain.object_key(Unit("twice", TWICE.text + " ")),
        toolchain.object_key(Unit("twice", TWICE.text, ("-O3",))),
        toolchain.object_key(Unit("other", TWICE.text)),
        Toolchain(Compiler(toolchain.command, "another")).object_key(TWICE),
    }
    assert len(keys) == 5


def test_many_builds_of_the_same_thing_at_once_agree(tmp_path: Path, fresh_cache: Path) -> None:
    toolchain = Toolchain.find()

    def build(index: int) -> bytes:
        return toolchain.build(UNITS, tmp_path / f"{index % 3}.so").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(build, range(12)))) == 1
    assert len(objects(fresh_cache)) == 2
    assert not list(fresh_cache.glob("objects/??/*.lock"))
    assert not list(fresh_cache.glob("objects/??/new-*"))


def test_processes_that_compile_the_same_thing_compile_it_once(
    tmp_path: Path, fresh_cache: Path
) -> None:
    counter = tmp_path / "calls"
    compiler = tmp_path / "counting-cc"
    real = Toolchain.find().command[0]
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {counter}\nexec {real} "$@"\n')
    compiler.chmod(0o755)
    script = (
        "import sys, pathlib\n"
        "from tuili.codegen.toolchain import Toolchain, Unit\n"
        "units = [Unit('one', 'int one(void) { return 1; }')]\n"
        "Toolchain.find().build(units, pathlib.Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "CC": str(compiler)}
    running = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path / f"{i}.so"], env=environment)
        for i in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    compiles = [line for line in counter.read_text().splitlines() if " -c " in line]
    assert len(compiles) == 1


BAD_C = "int f(void)\n{\n    return missing_name;\n}\n"


def test_a_refused_unit_is_an_error_with_place_command_and_source(
    tmp_path: Path, fresh_cache: Path
) -> None:
    with pytest.raises(
        ToolchainError, match=r"(?s)failed on bad .*bad\.c:3:12.*command: .*-c"
    ) as error:
        Toolchain.find().build([Unit("bad", BAD_C), *UNITS], tmp_path / "x.so")
    source = Path(str(error.value).rsplit("source: ", 1)[1])
    assert source.read_text() == BAD_C
    assert not (tmp_path / "x.so").exists()


def test_a_call_to_an_undeclared_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="implicit"):
        Toolchain.find().build([Unit("u", "int f(void) { return g(); }")], tmp_path / "x.so")


def test_a_failed_link_is_an_error(tmp_path: Path) -> None:
    undefined = [Unit("u", "int g(void); int f(void) { return g(); }")]
    with pytest.raises(ToolchainError, match=r"(?s)the library.*undefined reference.*g"):
        Toolchain.find().build(undefined, tmp_path / "x.so")


@pytest.mark.parametrize(
    ("cc", "message"),
    [
        ("no-such-compiler -O1", "'no-such-compiler' is no program on the path"),
        ("false", "--version` fails"),
    ],
)
def test_a_wrong_cc_is_an_error(cc: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", cc)
    with pytest.raises(ToolchainError, match=message):
        Toolchain.find()


def test_cc_may_come_with_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -DX=1")
    assert Toolchain.find().command[1:] == ("-DX=1",)


def test_cc_may_call_zig_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes the names of processors in its own spelling."""
    path = fake_compiler(tmp_path / "python", "x86_64")
    monkeypatch.setenv("CC", f"{path} -m ziglang cc")
    command = Toolchain.find().compile_command(Unit("u", "", ("-march=x86-64-v4",)), "u.c", "u.o")
    assert command[:4] == [str(path), "-m", "ziglang", "cc"]
    assert "-march=x86_64_v4" in command


def test_without_any_compiler_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tuili.codegen.compilers.find_spec", lambda name: None)
    with pytest.raises(
        ToolchainError, match=r"gcc is not on the path.*ziglang is not installed.*tuili\[zig\]"
    ):
        Toolchain.find()


def test_zig_gets_processor_names_as_it_spells_them() -> None:
    toolchain = Toolchain(Compiler(("zig", "cc"), "zig", is_zig=True))
    command = toolchain.compile_command(Unit("a", "", ("-march=x86-64-v3",)), "a.c", "a.o")
    assert "-march=x86_64_v3" in command


@pytest.mark.skipif(not find_spec("ziglang"), reason="the extra `zig` is not installed")
def test_zig_builds_the_same_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    library = Toolchain.find().build(UNITS, tmp_path / "sum.so")
    assert ctypes.CDLL(str(library)).add_twice(1, 20) == 41


def fake_compiler(path: Path, machine: str) -> Path:
    path.write_text(f'#!/bin/sh\n[ "$1" = -dumpmachine ] && echo {machine} || echo fake 1.0\n')
    path.chmod(0o755)
    return path


def test_another_machine_gets_its_cross_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross = fake_compiler(tmp_path / "riscv64-linux-gnu-gcc", "riscv64-linux-gnu")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CC", "cc")
    assert Toolchain.find("riscv64").command == (str(cross),)
    named = fake_compiler(tmp_path / "mycc", "riscv64-unknown-elf")
    monkeypatch.setenv("CC", str(named))
    assert Toolchain.find("riscv64").command == (str(named),)


def test_a_machine_that_no_compiler_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr("tuili.codegen.compilers.find_spec", lambda name: None)
    message = r"for vax found \(CC=cc is for another machine; vax-linux-gnu-gcc is not on the path"
    with pytest.raises(ToolchainError, match=message):
        Toolchain.find("vax")


@pytest.mark.skipif(not find_spec("ziglang"), reason="the extra `zig` is not installed")
def test_zig_compiles_for_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine, code = ("x86_64", 62) if platform.machine() == "aarch64" else ("aarch64", 183)
    library = Toolchain.find(machine).build(UNITS, tmp_path / "sum.so")
    assert int.from_bytes(library.read_bytes()[18:20], "little") == code
    assert str(tmp_path.parent).encode() not in library.read_bytes()


def test_the_cache_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUILI_CACHE", "/a/b")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("TUILI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/tuili")


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TUILI_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match=r"cache .*file/objects cannot be used: .*TUILI_CACHE"):
        Toolchain.find().build(UNITS, tmp_path / "x.so")


def test_what_a_killed_compile_left_behind_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / "ab/new-old", tmp_path / "ab/new-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "unit.c").write_text("int x;")
    os.utime(old, (1, 1))
    ObjectCache(tmp_path).prune()
    assert (old.exists(), new.exists()) == (False, True)


def test_borders_between_hashed_texts_count() -> None:
    assert content_key(["ab", "c"]) != content_key(["a", "bc"])


def test_pruning_removes_what_was_unused_longest(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    keys = [f"{i:02d}" * 32 for i in range(4)]
    for age, key in enumerate(keys):
        with cache.making(key, ".o") as scratch:
            assert scratch is not None
            (scratch / "x").write_bytes(b"x" * 100)
            kept = cache.keep(key, ".o", scratch / "x")
        os.utime(kept, (time.time() - 1000 + age, time.time() - 1000 + age))
    cache.find(keys[0], ".o")
    assert cache.prune(limit_bytes=200) == 2
    assert [cache.find(key, ".o") is not None for key in keys] == [True, False, False, True]
    assert cache.prune(limit_bytes=1) == 1


def test_a_cache_is_pruned_once_in_a_while_not_at_every_build(tmp_path: Path) -> None:
    cache, left = ObjectCache(tmp_path), tmp_path / "ab/new-old"

    def leaves(every_s: float) -> bool:
        left.mkdir(parents=True, exist_ok=True)
        os.utime(left, (1, 1))
        cache.prune_at_times(every_s=every_s)
        return left.exists()

    assert [leaves(3600), leaves(3600), leaves(0)] == [False, True, False]


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def enter(index: int) -> None:
        with locked(tmp_path / "x.lock"):
            inside.append(index)
            overlaps.append(len(inside))
            inside.remove(index)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
    assert set(overlaps) == {1}


def scripted_compiler(path: Path, does: str) -> Path:
    """A compiler that says who it is, and then does as told."""
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) echo cc 1;; *-dumpmachine*) ;; *) {does};; esac\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("kill -9 $$", r"was killed by SIGKILL on .*; most often memory runs out:"),
        ("exit 0", r"wrote nothing for "),
        ("exit 3", r"failed on .* with status 3:"),
    ],
)
def test_a_compiler_that_makes_nothing_is_an_error_of_the_compiler(
    does: str, message: str, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(scripted_compiler(tmp_path / "cc", does)))
    with pytest.raises(ToolchainError, match=message):
        Toolchain.find().build(UNITS, tmp_path / "x.so")


def test_a_compiler_named_from_here_runs_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mycc").symlink_to(Toolchain.find().command[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", "./mycc")
    Toolchain.find().build(UNITS, tmp_path / "x.so")
    assert Toolchain.find().command == (str(tmp_path / "mycc"),)  # and keeps the name it goes by


@pytest.mark.parametrize("variable", ["CC", "TUILI_CFLAGS"])
def test_quotes_that_do_not_end_are_an_error(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "gcc 'x")
    with pytest.raises(ToolchainError, match=rf"{variable} is .*No closing quotation"):
        Toolchain.find().build(UNITS, tmp_path / "x.so")


def test_what_a_cache_has_is_found_where_nothing_may_be_written(
    tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the image of a container, or in a cache of another user."""
    Toolchain.find().build(UNITS, tmp_path / "x.so")

    def refused(path: Path, *rest: object, **named: object) -> None:
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "touch", refused)
    assert Toolchain.find().build(UNITS, tmp_path / "y.so").exists()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TUILI_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(ToolchainError, match="has no home folder; set TUILI_CACHE"):
        cache_folder()


def test_folders_of_any_name_hold_a_cache_and_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a b 'q\" $(x) %s \\ \u63a8\u7406"
    monkeypatch.setenv("TUILI_CACHE", str(odd))
    assert Toolchain.find().build(UNITS, odd / "sum.so").exists()


def test_what_a_compiler_leaves_goes_with_the_build(
    tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    does = 'touch "$TMPDIR/left.s"; exit 1'
    monkeypatch.setenv("CC", str(scripted_compiler(tmp_path / "cc", does)))
    with pytest.raises(ToolchainError):
        Toolchain.find().build(UNITS, tmp_path / "x.so")
    assert not list(tmp_path.rglob("left.s"))


@pytest.mark.parametrize(
    ("says", "name"),
    [
        (
            "gcc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-20)\nCopyright Free Software Foundation",
            "gcc 8",
        ),
        ("gcc (Ubuntu 11.4.0-1ubuntu1) 11.4.0\nCopyright Free Software Foundation", ""),
        ("cc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright Free Software Foundation", ""),
        ("Ubuntu clang version 10.0.0-4ubuntu1", "clang 10"),
        ("Debian clang version 14.0.6", ""),
        ("Apple clang version 9.1.0", ""),
        ("some compiler 1.0", ""),
    ],
)
def test_compilers_that_are_too_old_are_passed_over(
    says: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("tuili.codegen.compilers.find_spec", lambda name: None)
    (tmp_path / "says").write_text(says)
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = -dumpmachine ] || /bin/cat {tmp_path / "says"}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if name:
        with pytest.raises(ToolchainError, match=rf"cc is {name}, and \d+ is the oldest that"):
            Toolchain.find()
        monkeypatch.setenv("CC", str(compiler))
        with pytest.raises(ToolchainError, match=rf"CC is .*: {name}, and \d+ is the oldest"):
            Toolchain.find()
    else:
        assert Toolchain.find().command == (str(compiler),)
