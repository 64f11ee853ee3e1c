"""Runs Triton's client examples and its own tests against tuili, and counts.

TRITON_QA=.. TRITON_CLIENT=.. python -m tests.conformance.triton.suites.run   everything
... --match 'http*'   some suites; 'examples' are the client examples
... --verbose         why each test failed
"""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.triton import sources
from tests.conformance.triton.suites import client_examples, suite
from tests.conformance.triton.suites.table import SUITES

_TARGETS = {5: 0.90, 6: 0.85}


def main(arguments: Sequence[str] | None = None) -> int:
    """The table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="*", help="a glob over the names of suites")
    parser.add_argument("--json", type=Path, help="where to write every result")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(arguments)
    try:
        sources.server()
        sources.client()
    except sources.Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    told: list[object] = []
    bad = False
    with tempfile.TemporaryDirectory(prefix="tuili-conformance-") as folder:
        scratch = Path(folder)
        print(f"{'':81} passed / runnable, skipped")
        if fnmatchcase("examples", options.match):
            outcomes = client_examples.run(scratch / "examples")
            told += [asdict(each) for each in outcomes]
            bad |= _report_examples(outcomes)
        results: list[suite.Result] = []
        for at, each in enumerate(SUITES):
            if fnmatchcase(each.name, options.match):
                results.append(suite.run(each, scratch / str(at)))
                _report(results[-1], options.verbose)
                told.append({"suite": each.name, "file": each.file, "tests": results[-1].tests})
    for issue, target in _TARGETS.items():
        passed = sum(r.count("passed") for r in results if r.suite.issue == issue)
        runnable = passed + sum(r.count("failed") for r in results if r.suite.issue == issue)
        share = passed / runnable if runnable else 1.0
        print(f"issue {issue}: {passed} / {runnable} = {share:.0%} (target {target:.0%})")
        bad |= share < target
    if options.json:
        options.json.write_text(json.dumps(told, indent=1))
    return 1 if bad else 0


def _report_examples(outcomes: list[client_examples.Outcome]) -> bool:
    count = {
        how: sum(1 for o in outcomes if o.result == how) for how in ("passed", "failed", "skipped")
    }
    print(
        f"{'client examples':81} {count['passed']} / {count['passed'] + count['failed']}, {count['skipped']}"
    )
    for each in outcomes:
        if each.result != "passed":
            print(f"    {each.result} {each.name}: {each.reason}")
    return count["failed"] > 0


def _report(result: suite.Result, verbose: bool) -> None:
    passed, failed = result.count("passed"), result.count("failed")
    print(
        f"{result.suite.file:52} {result.suite.name:28} {passed} / {passed + failed}, "
        f"{result.count('skipped')}",
        flush=True,
    )
    for name, (how, reason) in result.tests.items():
        if how == "skipped" or (how == "failed" and not verbose):
            print(f"    {how} {name}: {reason.splitlines()[-1] if reason else ''}"[:230])
        elif how == "failed":
            print(f"    FAILED {name}:\n{reason}\n")


if __name__ == "__main__":
    sys.exit(main())
