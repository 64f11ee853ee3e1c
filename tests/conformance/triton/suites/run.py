"""Runs Triton's client examples and its own tests against tuili, and counts.

TRITON_QA=.. TRITON_CLIENT=.. python -m tests.conformance.triton.suites.run   everything
... --match 'http*'   some rows, by their names or those of their files of results; 'examples' are
                      the client examples
... --resume          only what has no result yet in the folder of results
... --failed          only what has a result that is not all passed
... --page PATH       write the page of all results there too
... --none            run nothing: what the folder of results tells
... --note TEXT       what the page says of the run: when, where, on how busy a machine
... --verbose         why each test failed
"""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.triton import sources
from tests.conformance.triton.suites import client_examples, results, suite
from tests.conformance.triton.suites.reasons import WHY
from tests.conformance.triton.suites.table import SUITES

_TARGETS = {5: 0.90, 6: 0.85}
_EXAMPLES = "examples.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rows; 1 when a target is missed."""
    options = _parser().parse_args(arguments)
    try:
        sources.server()
        sources.client()
    except sources.Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    folder: Path = options.results
    folder.mkdir(parents=True, exist_ok=True)
    if not (options.resume or options.failed or options.none) and options.match == "*":
        for path in folder.glob("*.json"):
            path.unlink()
    print(f"{'':81} passed / runnable, skipped")
    if fnmatchcase("examples", options.match):
        _run_examples(folder, options)
    for each in SUITES:
        if any(fnmatchcase(name, options.match) for name in (each.name, results.key(each))):
            _run_row(folder, each, options)
    return _summary(folder, options.page, options.note)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="*", help="a glob over the names of rows")
    parser.add_argument("--results", type=Path, default=Path("build/conformance-triton"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--none", action="store_true")
    parser.add_argument("--note", default="")
    parser.add_argument("--verbose", action="store_true")
    return parser


def _run_row(folder: Path, each: suite.Suite, options: argparse.Namespace) -> None:
    known = results.read(folder, each)
    if (
        options.none
        or (options.resume and known)
        or (options.failed and not (known and known.count("failed")))
    ):
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tuili-conformance-") as scratch:
        found = suite.run(each, Path(scratch))
        _keep_logs(Path(scratch), folder / results.key(each), found)
    results.save(folder, found, time.monotonic() - began)
    _report(found, options.verbose)


def _keep_logs(scratch: Path, logs: Path, found: suite.Result) -> None:
    """What the server and the tests of a row with failures wrote."""
    shutil.rmtree(logs, ignore_errors=True)
    if found.count("failed"):
        for log in scratch.rglob("*.log"):
            target = logs / log.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, target)


def _run_examples(folder: Path, options: argparse.Namespace) -> None:
    path = folder / _EXAMPLES
    if options.none or ((options.resume or options.failed) and path.exists()):
        return
    with tempfile.TemporaryDirectory(prefix="tuili-conformance-") as scratch:
        outcomes = client_examples.run(Path(scratch))
    path.write_text(json.dumps({o.name: (o.result, o.reason) for o in outcomes}, indent=1))
    for each in outcomes:
        if each.result != "passed":
            print(f"    {each.result} {each.name}: {each.reason}")


def _summary(folder: Path, page: Path | None, note: str) -> int:
    """Counts all results of the folder, of this run and of earlier ones."""
    found = [(each, results.read(folder, each)) for each in SUITES]
    there = [result for _, result in found if result is not None]
    path = folder / _EXAMPLES
    told = json.loads(path.read_text()) if path.exists() else {}
    examples: results.Tests = {name: (how, why) for name, (how, why) in told.items()}
    bad = any(how == "failed" for how, _ in examples.values())
    print(
        f"examples: {sum(how == 'passed' for how, _ in examples.values())} of {len(examples)} passed"
    )
    for issue, target in _TARGETS.items():
        passed, runnable = results.share(there, issue)
        rate = passed / runnable if runnable else 1.0
        print(f"issue {issue}: {passed} / {runnable} = {rate:.1%} (target {target:.0%})")
        bad |= rate < target
    for each, result in found:
        if result is None:
            print(f"no result yet: {each.name} {' '.join(each.only)}")
    if page is not None:
        page.write_text(
            results.page(examples, there, _TARGETS, WHY, [e for e, r in found if r is None], note)
        )
    return 1 if bad else 0


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
