"""The client side of a row: the test and what it imports, its process, and what it said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PORTS = {"http": "8000", "grpc": "8001", "metrics": "8002"}
# Replaced in the tests: what a newer Python or NumPy lacks, and a path of Triton's checkout.
_REPLACED = (
    ("assertEquals(", "assertEqual("),
    ("np.NINF", "-np.inf"),
    ("np.PINF", "np.inf"),
    ('sys.path.append("../common")', ""),
)


def lay_out(
    folder: Path,
    files: Sequence[Path],
    ports: Mapping[str, int],
    replaced: Sequence[tuple[str, str]] = (),
) -> None:
    """The test and what it imports, with the ports of our server instead of the usual ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        text = path.read_text()
        for name, usual in _PORTS.items():
            text = re.sub(rf"(?<![0-9]){usual}(?![0-9])", str(ports[name]), text)
        for old, new in (*_REPLACED, *replaced):
            text = text.replace(old, new)
        (folder / path.name).write_text(text)


def run_tests(
    folder: Path, tests: Sequence[str], environment: Mapping[str, str], limit_s: float
) -> str:
    """What `unittest -v` wrote; it and all that it started are ended when its time is over."""
    line = [sys.executable, "-m", "unittest", "-v", *tests]
    log = folder / "unittest.log"
    printed = folder / "printed.log"
    # A file and a session of its own: a pipe that a left-over child holds open would be waited for.
    with log.open("wb") as output, printed.open("wb") as stdout:
        process = subprocess.Popen(
            line, cwd=folder, env=environment, stdout=stdout, stderr=output, start_new_session=True
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            output.write(f"\nended after {limit_s:.0f} s\n".encode())
        finally:
            _end(process)
    return log.read_text(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tests_in(source: Path) -> list[str]:
    """`Class.method` of every test of a file."""
    found: list[str] = []
    current = ""
    for line in source.read_text().splitlines():
        opened = re.match(r"class (?:(\w+)\(|(Test\w*):)", line)
        method = re.match(r"    (?:async )?def (test_\w*)\(", line)
        if opened:
            current = opened.group(1) or opened.group(2)
        elif method and current:
            found.append(f"{current}.{method.group(1)}")
    return found


def outcomes(output: str, tests: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What became of each test, with a reason, out of what `unittest -v` wrote."""
    blocks = dict(
        re.findall(
            r"^(?:ERROR|FAIL): (\w+) .*?\n-{20,}\n(.*?)\n(?=={20,}|-{20,}\n)",
            output,
            re.MULTILINE | re.DOTALL,
        )
    )
    return {name: _outcome(output, blocks, name.rpartition(".")[2]) for name in tests}


def _outcome(output: str, blocks: Mapping[str, str], method: str) -> tuple[str, str]:
    found = re.search(
        rf"^{method} \(.*?\.\.\. .*?(ok|FAIL|ERROR|skipped '([^\n]*)'|skipped \"([^\n]*)\")$",
        output,
        re.MULTILINE | re.DOTALL,
    )
    if found is None:
        return "failed", "did not end: " + output.strip()[-300:]
    if found.group(1) == "ok":
        return "passed", ""
    if found.group(1).startswith("skipped"):
        return "skipped", f"by itself: {found.group(2) or found.group(3)}"
    return "failed", blocks.get(method, "").strip()[-900:]
