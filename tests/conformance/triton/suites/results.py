"""Results: a file for each row of the table, written as soon as it has run, and a page of them."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.conformance.triton.suites.suite import Result, Suite

Tests = dict[str, tuple[str, str]]

_PAGE = """# Triton's own tests

`make conformance-triton TRITON_QA=../server TRITON_CLIENT=../client` runs Triton's client examples and the client side of
its L0 tests against tuili, each row of the table with a server and models of its own, and writes this page. The checkouts
are not part of this repository. The C++ back ends that the tests name have stand-ins in Python
(`tests/conformance/triton/suites/standins`); many tests time answers against the clock, so run them on an idle machine.
`--resume` goes on where a run was stopped, `--match 'batcher*'` runs some rows. Of tests that go through several back
ends, the part for ONNX models runs, and what only a build for GPUs lists is not asked for.

{done}

| part | passed | runnable | rate | target |
|---|---:|---:|---:|---:|
{totals}

## By file
{files}

## What does not pass
{failing}

## Rows without a result
{missing}

## What is not run, and why
{skipped}
"""


def key(suite: Suite) -> str:
    """The name of a row's file: readable, and its own."""
    words = f"{suite.name} {' '.join(suite.only)}" if suite.only != ("*",) else suite.name
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:120]


def save(folder: Path, result: Result, seconds: float) -> None:
    """Keep what became of a row."""
    suite = result.suite
    told = {
        "suite": suite.name, "file": suite.file, "issue": suite.issue, "seconds": round(seconds),
        "tests": result.tests,
    }  # fmt: skip
    (folder / f"{key(suite)}.json").write_text(json.dumps(told, indent=1))


def read(folder: Path, suite: Suite) -> Result | None:
    """What became of a row in an earlier run."""
    path = folder / f"{key(suite)}.json"
    if not path.exists():
        return None
    told: dict[str, Any] = json.loads(path.read_text())
    return Result(suite, {name: (how, why) for name, (how, why) in told["tests"].items()})


def share(results: Iterable[Result], issue: int) -> tuple[int, int]:
    """How many tests of an issue passed, and how many could run."""
    count = Counter(how for r in results if r.suite.issue == issue for how, _ in r.tests.values())
    return count["passed"], count["passed"] + count["failed"]


def page(
    examples: Tests,
    results: Sequence[Result],
    targets: dict[int, float],
    why: dict[str, str],
    missing: Sequence[Suite],
    note: str = "",
) -> str:
    """The page of a run; `why` has reasons for failures, by the end of a test's name."""
    count = Counter(how for how, _ in examples.values())
    ran = count["passed"] + count["failed"]
    totals = [
        f"| client examples | {count['passed']} | {ran} | {_rate(count['passed'], ran)} | 100% |"
    ]
    parts = {5: "server: L0 tests", 6: "scheduling: L0 tests"}
    for issue, target in targets.items():
        passed, runnable = share(results, issue)
        rate = _rate(passed, runnable)
        totals.append(f"| {parts[issue]} | {passed} | {runnable} | {rate} | {target:.0%} |")
    done = "All rows of the table have run."
    if missing:
        done = (
            f"**This run is not whole: {len(results)} of {len(results) + len(missing)} rows have run.** "
            "The rates say nothing about the others, which are listed below."
        )
    return _PAGE.format(
        done=f"{done}\n{note}" if note else done,
        totals="\n".join(totals),
        files="\n".join(_files(results)),
        failing="\n".join(_failing(examples, results, why)) or "Nothing.",
        missing="\n".join(_missing(missing)) or "None.",
        skipped="\n".join(_skipped(examples, results)),
    )


def _rate(passed: int, runnable: int) -> str:
    return f"{passed / runnable:.1%}" if runnable else "-"


def _files(results: Sequence[Result]) -> list[str]:
    lines = ["| file | rows | passed / runnable | skipped |", "|---|---|---:|---:|"]
    for file in dict.fromkeys(r.suite.file for r in results):
        mine = [r for r in results if r.suite.file == file]
        count = Counter(how for r in mine for how, _ in r.tests.values())
        rows = ", ".join(
            dict.fromkeys(r.suite.name for r in mine if r.count("passed") or r.count("failed"))
        )
        passed, runnable = count["passed"], count["passed"] + count["failed"]
        lines.append(f"| `{file}` | {rows} | {passed} / {runnable} | {count['skipped']} |")
    return lines


def _failing(examples: Tests, results: Sequence[Result], why: dict[str, str]) -> list[str]:
    lines = ["| test | row | why |", "|---|---|---|"]
    lines += [
        f"| `{name}` | examples | {_cell(t)} |"
        for name, (how, t) in examples.items()
        if how == "failed"
    ]
    for result in results:
        for name, (how, text) in result.tests.items():
            if how == "failed":
                reason = next((r for end, r in why.items() if name.endswith(end)), "")
                lines.append(f"| `{name}` | {result.suite.name} | {reason or _cell(text)} |")
    return lines if len(lines) > 2 else []


def _missing(suites: Sequence[Suite]) -> list[str]:
    rows = dict.fromkeys(f"{suite.name} (`{suite.file}`)" for suite in suites)
    return [f"- {row}" for row in rows]


def _skipped(examples: Tests, results: Sequence[Result]) -> list[str]:
    """By file and reason, as many tests share one."""
    reasons: Counter[tuple[str, str]] = Counter()
    for name, (how, text) in examples.items():
        if how == "skipped":
            reasons[name, text] += 1
    for result in results:
        for how, text in result.tests.values():
            if how == "skipped":
                reasons[result.suite.file, text] += 1
    lines = ["| file | tests | reason |", "|---|---:|---|"]
    return lines + [
        f"| `{file}` | {count} | {_cell(text)} |" for (file, text), count in reasons.items()
    ]


def _cell(text: str) -> str:
    """The last line of a reason, as a cell of a table."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    return last.replace("|", "\\|").replace("<", "\\<")[:160]
