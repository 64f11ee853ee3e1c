"""One test file of Triton against our server: how it is set up, what of it can run, how it went."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.triton import servers, sources
from tests.conformance.triton.suites.client import lay_out, outcomes, run_tests, tests_in


@dataclass(frozen=True, slots=True)
class Suite:
    """A test file; `build(repository, qa)` makes its models, `skips` maps globs to reasons."""

    name: str
    file: str
    build: Callable[[Path, Path], None]
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    server_environment: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ("*",)
    skips: Mapping[str, str] = field(default_factory=dict)
    extra_files: Sequence[str] = ()
    # What is written otherwise in the test and what it imports.
    replaced: Sequence[tuple[str, str]] = ()
    own_server: bool = False  # every test starts with a fresh server
    # What the environment of server and client says for some tests, by a glob over their names.
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # What lies beside the test, where it runs; the repository does as `models`.
    beside: Callable[[Path, Path], None] | None = None
    timeout_s: int = 300  # for the tests that share a server
    limit_s: int = 1800  # for the whole row
    issue: int = 5


@dataclass(slots=True)
class Result:
    """What became of each test of a suite: `passed`, `failed` or `skipped`, with a reason."""

    suite: Suite
    tests: dict[str, tuple[str, str]] = field(default_factory=dict)

    def count(self, how: str) -> int:
        """How many went so."""
        return sum(1 for found, _ in self.tests.values() if found == how)


def run(suite: Suite, scratch: Path) -> Result:
    """Run every test of a suite that can run."""
    qa = sources.server() / "qa"
    result = Result(suite)
    if not (qa / suite.file).exists():
        result.tests["*"] = ("failed", f"this checkout has no {suite.file}")
        return result
    names = [n for n in tests_in(qa / suite.file) if any(fnmatchcase(n, g) for g in suite.only)]
    wanted: list[str] = []
    for name in names:
        reason = next((why for glob, why in suite.skips.items() if fnmatchcase(name, glob)), None)
        if reason is None:
            wanted.append(name)
        elif reason != "another row":
            result.tests[name] = ("skipped", reason)
    alone = suite.own_server or bool(suite.settings)
    groups = [[name] for name in wanted] if alone else [wanted] if wanted else []
    end = time.monotonic() + suite.limit_s
    for at, group in enumerate(groups):
        try:
            result.tests |= _run_group(suite, qa, scratch / f"run{at}", group, end)
        except (RuntimeError, OSError) as error:
            result.tests |= dict.fromkeys(group, ("failed", str(error)[-600:]))
    return result


def _run_group(
    suite: Suite, qa: Path, scratch: Path, group: list[str], end: float
) -> dict[str, tuple[str, str]]:
    """Some tests, with a server of their own; all is over at `end`."""
    if time.monotonic() > end:
        return dict.fromkeys(group, ("failed", f"the row's {suite.limit_s} s were over"))
    client = scratch / "client"
    repository = client / "models"  # tests move it
    repository.mkdir(parents=True)
    suite.build(repository, qa)
    settings: dict[str, str] = {}
    for glob, more in suite.settings.items():
        if len(group) == 1 and fnmatchcase(group[0], glob):
            settings |= more
    environment = {**os.environ, **suite.server_environment, **settings}
    arguments = ["--compat", "triton", *suite.arguments]
    with servers.tuili(
        repository, scratch / "server.log", *arguments,
        environment=environment, start_s=end - time.monotonic(),
    ) as server:  # fmt: skip
        files = [*(qa / "common").glob("*.py"), *(qa / f for f in (suite.file, *suite.extra_files))]
        lay_out(client, files, server.ports, suite.replaced)
        if suite.beside is not None:
            suite.beside(client, qa)
        client_environment = {
            **os.environ, **suite.environment, "PYTHONPATH": str(client), "SERVER_PID": str(server.process.pid),
            "TRITONSERVER_IPADDR": "127.0.0.1", "SERVER_LOG": str(scratch / "server.log"), **settings,
        }  # fmt: skip
        tests = [f"{Path(suite.file).stem}.{name}" for name in group]
        limit_s = min(suite.timeout_s, max(end - time.monotonic(), 1))
        output = run_tests(client, tests, client_environment, limit_s)
    return outcomes(output, group)


def copy(source: Path, target: Path) -> None:
    """Copy a model, and make the version folder that an ensemble needs."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    if not any(each.name.isdigit() for each in target.iterdir()):
        (target / "1").mkdir()
