"""Runs `onnx.backend.test` through `tuili.onnx_backend`, counts by category, lists what fails.

python -m tests.conformance.run                  all cases, two processes
python -m tests.conformance.run --match '_conv_'  those whose name matches
python -m tests.conformance.run --json out.json   every case with its result
python -m tests.conformance.run --page out.md     the page of the docs
python -m tests.conformance.run --read out.json   the results of an earlier run
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import unittest
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from tests.conformance.outcome import Outcome
from tests.conformance.page import FAILING, page

# What cannot pass, and why; a case here is skipped, not failed.
SKIPPED: dict[str, str] = {
    r"test_bernoulli.*": "draws random numbers: another generator gives other ones",
    r"test_training_dropout_(default_)?(mask_)?cpu": "draws random numbers, as above",
    r"test_training_dropout_cpu": "draws random numbers, as above",
    r"test_loop16_seq_none_cpu": "the suite cannot compare sequences with elements of rank 0; "
    "tests/ops/test_onnx_cases.py compares this one",
    r"test_gradient_.*": "ai.onnx.preview.training::Gradient is no inference operator",
}
CHUNK = 20
REST = "## Triton's own tests"


@cache
def suite(*, open_dims: bool = False) -> dict[str, unittest.TestCase]:
    """All CPU cases by name; with `open_dims` the models know no size of their inputs."""
    from onnx.backend.test import BackendTest

    from tests.conformance.open_dims import OpenBackend
    from tuili.onnx_backend import TuiliBackend

    found: dict[str, unittest.TestCase] = {}
    tests = BackendTest(OpenBackend if open_dims else TuiliBackend, __name__)
    for case_class in tests.test_cases.values():
        for name in unittest.TestLoader().getTestCaseNames(case_class):
            if name.endswith("_cpu"):
                found[f"{case_class.__name__}.{name}"] = case_class(name)
    return found


def run_chunk(names: list[str], *, open_dims: bool = False) -> list[Outcome]:
    """The outcomes of some cases; runs in a process of its own."""
    warnings.simplefilter("ignore")
    cases = suite(open_dims=open_dims)
    return [run_case(name, cases[name]) for name in names]


def run_case(name: str, case: unittest.TestCase) -> Outcome:
    """One case."""
    from tuili import onnx_backend

    category, _, short = name.partition(".")
    category = category.removeprefix("OnnxBackend").removesuffix("Test")
    for pattern, reason in SKIPPED.items():
        if re.fullmatch(pattern, short):
            return Outcome(name, category, "skipped", reason=reason)
    result = unittest.TestResult()
    onnx_backend.LAST.clear()
    case.run(result)
    how = onnx_backend.LAST.get("how", "not prepared")
    if result.skipped:
        return Outcome(name, category, "skipped", how, result.skipped[0][1])
    problems = [*result.failures, *result.errors]
    if problems:
        return Outcome(name, category, "failed", how, problems[0][1].strip().splitlines()[-1][:300])
    return Outcome(name, category, "passed", how)


def table(outcomes: list[Outcome]) -> str:
    """Counts by category, and for passed cases by where they ran."""
    lines = [f"{'category':<28}{'cases':>7}{'passed':>8}{'failed':>8}{'skipped':>9}{'rate':>9}"]
    categories = sorted({outcome.category for outcome in outcomes})
    for category in [*categories, "all"]:
        rows = [o for o in outcomes if category in (o.category, "all")]
        count = Counter(o.result for o in rows)
        rate = count["passed"] / len(rows)
        lines.append(
            f"{category:<28}{len(rows):>7}{count['passed']:>8}{count['failed']:>8}"
            f"{count['skipped']:>9}{rate:>9.2%}"
        )
    where = Counter(o.how for o in outcomes if o.result == "passed")
    lines.append("passed: " + ", ".join(f"{how} {n}" for how, n in where.most_common()))
    return "\n".join(lines)


def _rest_of(path: Path) -> str:
    """What follows the backend suite on the page; another command measures it."""
    text = path.read_text() if path.exists() else ""
    return text[text.index(REST) :] if REST in text else ""


def main() -> int:
    """Run, print, and fail when a case fails that is not listed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1, help="only every n-th case")
    parser.add_argument("--open-dims", action="store_true", help="hide the sizes of all inputs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--read", type=Path)
    options = parser.parse_args()
    outcomes = _read(options.read) if options.read else _run(options)
    return _report(outcomes, options)


def _read(path: Path) -> list[Outcome]:
    return [Outcome(**entry) for entry in json.loads(path.read_text())]


def _run(options: argparse.Namespace) -> list[Outcome]:
    names = [name for name in suite() if re.search(options.match, name)][:: options.every]
    chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for found in pool.map(partial(run_chunk, open_dims=options.open_dims), chunks):
            outcomes += found
            sys.stderr.write(f"\r{len(outcomes)}/{len(names)}")
    sys.stderr.write("\n")
    return outcomes


def _report(outcomes: list[Outcome], options: argparse.Namespace) -> int:
    for outcome in outcomes:
        if outcome.result != "passed":
            print(f"{outcome.result}: {outcome.name} ({outcome.how}): {outcome.reason}")
    print(table(outcomes))
    if options.json:
        options.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
    if options.page:
        options.page.write_text(page(outcomes).rstrip() + "\n\n" + _rest_of(options.page))
    failed = sum(o.result == "failed" for o in outcomes)
    unexpected = [o.name for o in outcomes if o.result == "failed" and not _is_listed(o)]
    passed = sum(o.result == "passed" for o in outcomes)
    skipped = sum(o.result == "skipped" for o in outcomes)
    print(f"conformance: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if unexpected else 0


def _is_listed(outcome: Outcome) -> bool:
    return any(f".{name}_cpu" in outcome.name for name in FAILING)


if __name__ == "__main__":
    sys.exit(main())
