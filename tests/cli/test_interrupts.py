"""A signal that ends a command: one line, the code of a shell, no file and no process left."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

MODEL = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3] x) => (float[n, 3] y) {y = Softplus(x)}"""
# A compiler that ends the one who called it, as Ctrl-C does, and then never ends itself.
COMPILER = """#!/bin/sh
case "$*" in
*--version*) echo "cc 1.0" ;;
*-dumpmachine*) echo {machine} ;;
*-fsyntax-only*) ;;
*)  sleep 1000 &
    echo $$ $! >> {told}
    mkdir {told}.first && kill -{name} $PPID
    wait ;;
esac
"""


def has_ended(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 20)[0])
    finally:
        os.close(process)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes of others")
@pytest.mark.parametrize(
    ("name", "code", "said"), [("INT", 130, "interrupted\n"), ("TERM", 143, "terminated\n")]
)
@pytest.mark.parametrize("command", [["compile", "-o", "made.tuili"], ["run"]], ids=lambda c: c[0])
def test_a_signal_during_compilation_leaves_nothing(
    command: list[str], name: str, code: int, said: str, tmp_path: Path
) -> None:
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "net.onnx")
    compiler, told = tmp_path / "cc", tmp_path / "told"
    compiler.write_text(COMPILER.format(machine=os.uname().machine, told=told, name=name))
    compiler.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tuili", command[0], "net.onnx", *command[1:]],
        cwd=tmp_path,
        env={**os.environ, "CC": str(compiler), "TUILI_CACHE": "cache", "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "cache", "cc", "net.onnx", "scratch", "told", "told.first",
    ]  # fmt: skip
    assert not list(scratch.iterdir())
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]
    assert all(map(has_ended, map(int, told.read_text().split())))


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup: the end of the terminal is not that of the command."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import tuili.cli.main\n"
        "tuili.cli.main.app = lambda: os.kill(os.getpid(), signal.SIGHUP)\n"
        "from tuili.cli.interrupts import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_an_interrupt_looks_like_does_not_matter() -> None:
    """A library that is interrupted while it loads may raise whatever it likes."""
    code = (
        "import os, signal\n"
        "import tuili.cli.main\n"
        "def app():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        signal.pause()\n"
        "    except KeyboardInterrupt:\n"
        "        raise ImportError('half loaded') from None\n"
        "tuili.cli.main.app = app\n"
        "from tuili.cli.interrupts import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"interrupted\n")
