"""The page docs/reference/architectures.md, from the results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.architectures.table import CASES
from tuili.bench.rounds import geometric_mean

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "architectures.md"
# Standard deviations of the output; half-precision numbers round at 2^-11 and 2^-8 of themselves.
AGREES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}

Result = Mapping[str, Any]

_HEAD = """# Architectures

`make architectures` exports networks of timm and transformers with random weights (seeded, of
ordinary size, batch norms with the statistics of an example) by torch's two ONNX exporters, and
runs each file on tuili and onnxruntime. A row is a file. *error* is the largest difference from
onnxruntime's answer, in standard deviations of the output, at the traced size and at another of
the open dims ("-": the file itself runs on no other). *ratio* is onnxruntime's time over tuili's
on one thread, at the tiny sizes of these networks: orientation, not a benchmark; see
[performance](performance.md) for those. A file is *unstable* where onnxruntime's own answer moves
as far when its graph optimisations are off, or its inputs change by 1e-6 of themselves: random
weights make such networks, and no engine can be held to their answers.
"""


def is_good(result: Result, name: str = "") -> bool:
    """Whether a case opened and agreed at all sizes."""
    return "failure" not in result and _worst(result) <= _tolerance(name)


def _tolerance(name: str) -> float:
    return AGREES[CASES[name].dtype if name in CASES else "float32"]


def _worst(result: Result) -> float:
    return max(result["error"], result["error_other_size"] or 0.0)


def outcome(name: str, result: Result) -> str:
    """`agrees`, `differs`, `fails`, `unstable`, or `no reference`: nothing to compare with."""
    failure = result.get("failure", "")
    if failure.startswith(("torch:", "onnxruntime:")):
        return "no reference"
    if failure:
        return "fails"
    if is_good(result, name):
        return "agrees"
    own = result.get("unrest", 0.0)
    return "unstable" if own > _tolerance(name) and _worst(result) <= 2 * own else "differs"


def write_page(results: Mapping[str, Result], machine: Mapping[str, Any]) -> None:
    """The counts, what is not as it should be, and a row for every file."""
    PAGE.write_text(page(results, machine))


def page(results: Mapping[str, Result], machine: Mapping[str, Any]) -> str:
    """The text of the page."""
    by: dict[str, list[str]] = {}
    for name, result in results.items():
        by.setdefault(outcome(name, result), []).append(name)
    good = by.get("agrees", [])
    ran = [name for name in results if "ms" in results[name]]
    ratios = [results[name]["onnxruntime_ms"] / results[name]["ms"] for name in ran]
    hosted = [name for name in ran if results[name]["host_steps"]]
    tried = len(results) - len(by.get("no reference", [])) - len(by.get("unstable", []))
    quick = sum("-O1" in results[name].get("flags", "") for name in ran)
    said = f" The C of {quick} files was compiled with `-O1` to save time." if quick else ""
    counts = (
        f"**{len(good)} of {tried} files open and agree**; {len(hosted)} of them with a step in "
        f"Python. Geometric mean of the ratios: {geometric_mean(ratios or [1.0]):.2f}.\n"
    )
    text = [
        _HEAD,
        f"{machine['processor']}, {machine['cores']} cores, shared with other work.{said}",
        f"{len(results)} of the {len(CASES)} files of the table have a result so far.\n",
        counts,
    ]
    text += _failures(by, results)
    text += [
        "| file | exporter | error | other size | std of output | ratio | host steps |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(_row(name, results[name]) for name in sorted(ran)),
    ]
    return "\n".join(text) + "\n"


def _failures(by: Mapping[str, list[str]], results: Mapping[str, Result]) -> list[str]:
    lines: list[str] = []
    for kind in ("fails", "differs", "unstable", "no reference"):
        for name in sorted(by.get(kind, [])):
            result = results[name]
            why = result.get("failure") or f"error {_worst(result):.1e}"
            if "unrest" in result:
                why += f"; onnxruntime differs from itself by {result['unrest']:.1e}"
            lines.append(f"| {name} | {kind} | {_plain(why)} |")
    if not lines:
        return []
    return ["| file | outcome | why |", "|---|---|---|", *lines, ""]


def without_folders(text: str) -> str:
    """What an exporter or an engine said, without the folders of this machine."""
    return re.sub(re.escape(str(Path.home())) + r"/\S*/", "", text)


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("<", "(").replace(">", ")").split())[:200]


def _row(name: str, result: Result) -> str:
    other = result["error_other_size"]
    sizes = "-" if other is None else f"{other:.1e}"
    ratio = result["onnxruntime_ms"] / result["ms"]
    exporter = CASES[name].exporter if name in CASES else ""
    return (
        f"| {name} | {exporter} | {result['error']:.1e} | {sizes} | {result['std']:.2g} |"
        f" {ratio:.2f} | {len(result['host_steps'])} |"
    )
