"""`make fuzz-ops`: random graphs through the compiler, the NumPy meaning and onnxruntime.

python -m tests.fuzz.run                       20,000 graphs, two processes
python -m tests.fuzz.run --seed 1234           one graph, printed with what differs
python -m tests.fuzz.run --graphs 500 --start 20000
python -m tests.fuzz.run --steps quantized     residual sums, shared weights; or control
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

BATCH = 120  # graphs for a process
UNIT = 24  # graphs for a call of the C compiler
# gcc spends most of its time above -O1; the slice in the tests runs what users get.
FLAGS = "-O1"
_TIMEOUT_S = 900
COUNTS = ("graphs", "resized", "refused", "misfits", "compared")


def work(start: int, stop: int, group: str) -> None:
    """One batch, in a process of its own: what it showed is printed as JSON."""
    warnings.simplefilter("ignore")
    from tests.fuzz.check import check_seeds

    found = [
        asdict(check_seeds(range(first, min(first + UNIT, stop)), group))
        for first in range(start, stop, UNIT)
    ]
    print(json.dumps(merged(found)))


def batch(start: int, stop: int, group: str) -> dict[str, Any]:
    """A batch in a child process; a crash is looked for in its halves."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--steps", group]
    command += ["--work", f"{start}:{stop}"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if result.returncode == 0:
            return json.loads(result.stdout.splitlines()[-1])
        text = f"status {result.returncode}: {result.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        text = f"no end after {_TIMEOUT_S} s"
    if stop - start == 1:
        finding = {"name": f"seed {start}", "kind": "crash", "text": text, "graph": ""}
        return {
            "graphs": 1,
            "resized": 0,
            "refused": 0,
            "misfits": 0,
            "compared": 0,
            "explained": {},
            "findings": [finding],
        }
    middle = (start + stop) // 2
    halves = [batch(start, middle, group), batch(middle, stop, group)]
    return merged(halves)


def merged(tallies: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums."""
    explained: Counter[str] = Counter()
    for tally in tallies:
        explained.update(tally["explained"])
    sums = {key: sum(t[key] for t in tallies) for key in COUNTS}
    findings = [finding for tally in tallies for finding in tally["findings"]]
    return {**sums, "explained": dict(explained), "findings": findings}


def report(total: dict[str, Any]) -> str:
    """The last lines."""
    sizes = f"{total['resized']} at a second size too, {total['refused']} refuse it"
    lines = [
        f"{total['graphs']} graphs ({sizes}), {total['compared']} compared with onnxruntime",
        f"{total['misfits']} refuse sizes that do not fit, as they must",
    ]
    for reason, count in sorted(total["explained"].items()):
        lines.append(f"explained {count:>5}: {reason}")
    lines.append(f"unexplained: {len(total['findings'])}")
    return "\n".join(lines)


def main() -> int:
    """Run, print, and fail when something differs that is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", choices=("all", "quantized", "control"), default="all")
    parser.add_argument("--work")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("TUILI_CFLAGS", FLAGS)
    if options.work:
        first, last = options.work.split(":")
        work(int(first), int(last), options.steps)
        return 0
    if options.seed is not None:
        return show(options.seed, options.steps)
    return sweep(options)


def show(seed: int, group: str) -> int:
    """One graph, in this process."""
    warnings.simplefilter("ignore")
    from tests.fuzz.check import check_seeds, seeded
    from tuili.ir.text import to_text

    part = seeded(seed, group)
    print(to_text(part.graph) if part else "no graph")
    tally = check_seeds([seed], group)
    for finding in tally.findings:
        print(f"{finding.name}: {finding.kind}: {finding.text}")
    print(report(asdict(tally)))
    return 1 if tally.findings else 0


def sweep(options: argparse.Namespace) -> int:
    """All graphs."""
    began = time.monotonic()
    starts = range(options.start, options.start + options.graphs, BATCH)
    end = options.start + options.graphs
    tallies: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(batch, start, min(start + BATCH, end), options.steps) for start in starts
        ]
        for job in as_completed(jobs):
            tallies.append(job.result())
            for finding in tallies[-1]["findings"]:
                print("\n{name}: {kind}: {text}\n{graph}".format(**finding), flush=True)
            done = sum(t["graphs"] for t in tallies)
            bad = sum(len(t["findings"]) for t in tallies)
            rate = done / (time.monotonic() - began)
            sys.stderr.write(f"\r{done}/{options.graphs} graphs, {bad} found, {rate:.1f}/s ")
    total = merged(tallies)
    sys.stderr.write("\n")
    print(report(total))
    if options.json:
        options.json.write_text(json.dumps(total, indent=1))
    return 1 if total["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
