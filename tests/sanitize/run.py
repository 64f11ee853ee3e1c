"""`make sanitize`: generated C under the address and undefined-behaviour sanitizers.

python -m tests.sanitize.run                       the whole backend suite, and 480 random graphs
python -m tests.sanitize.run --every 29 --graphs 24

Programs run in children that preload the sanitizers' libraries: Python itself has none. The address
sanitizer writes to files of its own, the other one to standard error. The memory of a
model's intermediates is one block, so accesses beyond a tensor are seen at inputs, outputs, tensors
whose size depends on data, and the ends of that block.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FLAGS = "-O1 -g -fsanitize=address,undefined -fsanitize-recover=address,undefined"
_FIRST_SEED = 300  # no seed of the slice in tests/fuzz: other graphs are seen here
_BATCH = 24
_RUNTIME = re.compile(r"(\w+\.c):\d+:\d+: runtime error: (.*)")


def library(name: str) -> str:
    """The path of a library of gcc; a bare name when it has none."""
    command = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment(logs: Path) -> dict[str, str]:
    """What makes generated C check itself, in a process that was not built for it."""
    # Leaks are Python's own at exit; numpy and onnxruntime pair new and free in their own ways.
    options = f"halt_on_error=0:detect_leaks=0:alloc_dealloc_mismatch=0:log_path={logs}/report"
    return {
        **os.environ,
        "CC": "env -u LD_PRELOAD gcc",
        "TUILI_CFLAGS": FLAGS,
        "LD_PRELOAD": f"{library('libasan.so')}:{library('libubsan.so')}",
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": f"{options}:print_stacktrace=1",
    }


def reports(texts: Sequence[str]) -> Counter[str]:
    """The kinds of reports, counted."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(re.findall(r"ERROR: (AddressSanitizer: [\w-]+)", text))
        for place, message in _RUNTIME.findall(text):
            found[f"{place}: {re.sub(r'0x[0-9a-f]+|-?[0-9]+', 'N', message)}"] += 1
    return found


def sanitize(commands: Sequence[Sequence[str]], jobs: int = 1) -> tuple[Counter[str], list[str]]:
    """The reports of some Python commands, and the commands that failed."""
    with tempfile.TemporaryDirectory(prefix="tuili-sanitize-") as folder:
        logs = Path(folder)
        # A cache of their own: what was compiled before may not check itself.
        variables = {**environment(logs), "TUILI_CACHE": f"{logs}/cache"}

        def work(numbered: tuple[int, Sequence[str]]) -> int:
            number, command = numbered
            with (logs / f"report.stderr{number}").open("w") as errors:
                command = [sys.executable, "-W", "ignore", *command]
                return subprocess.run(command, env=variables, stderr=errors, check=False).returncode

        with ThreadPoolExecutor(jobs) as pool:
            codes = list(pool.map(work, enumerate(commands)))
        texts = [path.read_text(errors="replace") for path in sorted(logs.glob("report*"))]
    failed = [
        " ".join(command)[:200] for command, code in zip(commands, codes, strict=True) if code
    ]
    found = reports(texts)
    if found or failed:
        sys.stderr.write("\n".join(text[:4000] for text in texts))
    return found, failed


def graphs(start: int, stop: int) -> list[str]:
    """The command that checks the random graphs of some seeds."""
    text = (
        "from tests.fuzz.check import check_seeds\n"
        f"tally = check_seeds(range({start}, {stop}), with_onnxruntime=False)\n"
        "assert tally.graphs and not tally.findings, tally.findings"
    )
    return ["-c", text]


def main() -> int:
    """Run, print, and fail on any report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th case of the suite")
    parser.add_argument("--graphs", type=int, default=480)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    stop = _FIRST_SEED + options.graphs
    commands = [
        graphs(start, min(start + _BATCH, stop)) for start in range(_FIRST_SEED, stop, _BATCH)
    ]
    suite = ["-m", "tests.conformance.run", "--every", str(options.every)]
    found, failed = sanitize([[*suite, "--jobs", "1"], *commands], options.jobs)
    for kind, count in found.most_common():
        print(f"{count:>6} {kind}")
    for command in failed:
        print(f"failed: {command}")
    print(f"sanitize: {sum(found.values())} reports")
    return 1 if found or failed else 0


if __name__ == "__main__":
    sys.exit(main())
