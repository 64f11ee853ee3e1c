"""Networks of timm and transformers beside onnxruntime: `make architectures`.

`python -m benchmarks.architectures [CASE]...` exports what is missing, runs what has no result yet
(`--again`: what failed; `--all`: everything) and writes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.architectures.report import is_good, without_folders, write_page
from benchmarks.architectures.table import CASES
from benchmarks.fetch import cache_dir, locked
from benchmarks.models import torch_python
from tuili.bench.report import machine

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
TIMM = ("timm==1.0.31", "torchvision==0.28.0", "pillow", "scipy")
MOST_S = 1800
PER_PROCESS = 10  # importing torch takes seconds


def folder() -> Path:
    """Where the exported files lie."""
    path = cache_dir() / "onnx" / "architectures"
    path.mkdir(parents=True, exist_ok=True)
    return path


def timm_packages() -> Path:
    """timm and what it imports, apart from torch, which its torchvision may not fit."""
    with locked("timm") as cache:
        target = cache / "timm-1.0.31"
        if not target.exists():
            command = [torch_python(), "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*command, "--target", target, *TIMM], check=True)
    return target


def export(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Export cases; what torch said of each."""
    env = os.environ | {"TIMM_PACKAGES": str(timm_packages()), "PYTHONPATH": str(ROOT)}
    said: dict[str, dict[str, Any]] = {}
    for some in _batches(names):
        command = [torch_python(), "-m", "benchmarks.architectures.export", folder(), *some]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                said[found["case"]] = found
        for name in some:
            said.setdefault(name, {"case": name, "error": f"the exporter died: {done.returncode}"})
    return said


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[at : at + PER_PROCESS] for at in range(0, len(names), PER_PROCESS))


def check(name: str) -> dict[str, Any]:
    """The result of one case, from a process of its own."""
    path = folder() / f"{name}.onnx"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.architectures.check", path]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=MOST_S
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"not done within {MOST_S} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"failure": f"the process died: {done.returncode} {last}"[:500]}
    return json.loads(done.stdout.splitlines()[-1])


def _wanted(
    names: Iterable[str], results: dict[str, Any], options: argparse.Namespace
) -> list[str]:
    chosen = list(names) or list(CASES)
    if options.page:
        return []
    if options.all or options.cases:
        return chosen
    if options.again:
        return [name for name in chosen if name in results and not is_good(results[name], name)]
    return [name for name in chosen if name not in results]


def main() -> None:
    """Export, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--again", action="store_true", help="run what failed")
    parser.add_argument("--all", action="store_true", help="run everything")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    console = Console(width=160, log_path=False)
    kept = json.loads(options.results.read_text()) if options.results.exists() else {}
    results: dict[str, Any] = kept.get("cases", {})
    names = _wanted(options.cases, results, options)
    for some in _batches(names):
        missing = [name for name in some if not (folder() / f"{name}.onnx").exists()]
        said = export(missing) if missing else {}
        for name in some:
            if "error" in said.get(name, {}):
                results[name] = {"failure": f"torch: {said[name]['error']}"}
            else:
                results[name] = check(name)
            if "failure" in results[name]:
                results[name]["failure"] = without_folders(results[name]["failure"])
            console.log(f"{name}: {_line(results[name])}")
            record = {"machine": machine(), "cases": dict(sorted(results.items()))}
            options.results.write_text(json.dumps(record, indent=1) + "\n")
    if options.results == RESULTS:
        write_page(dict(sorted(results.items())), kept.get("machine", machine()))


def _line(result: dict[str, Any]) -> str:
    if "failure" in result:
        return f"[red]{result['failure'][:200]}"
    ratio = result["onnxruntime_ms"] / result["ms"]
    other = result["error_other_size"]
    sizes = "one size" if other is None else f"{other:.1e}"
    return (
        f"{result['error']:.1e} / {sizes}, std {result['std']:.2g}, {ratio:.2f}x, "
        f"compiled {result['compile_s']} s, {len(result['host_steps'])} host steps"
    )


if __name__ == "__main__":
    main()
