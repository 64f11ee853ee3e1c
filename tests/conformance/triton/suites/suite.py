"""One test file of Triton against our server: how it is set up, what of it can run, how it went."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.triton import servers, sources

_PORTS = {"http": "8000", "grpc": "8001", "metrics": "8002"}


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
    own_server: bool = False  # every test starts with a fresh server
    # What the environment of server and client says for some tests, by a glob over their names.
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # What lies beside the test, where it runs; the repository does as `models`.
    beside: Callable[[Path, Path], None] | None = None
    timeout_s: int = 300
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
    work = scratch / "client"
    work.mkdir(parents=True)
    source = qa / suite.file
    names = [n for n in _tests_in(source) if any(fnmatchcase(n, glob) for glob in suite.only)]
    wanted: list[str] = []
    for name in names:
        reason = next((why for glob, why in suite.skips.items() if fnmatchcase(name, glob)), None)
        if reason is None:
            wanted.append(name)
        else:
            result.tests[name] = ("skipped", reason)
    if not wanted:
        return result
    alone = suite.own_server or bool(suite.settings)
    groups = [[name] for name in wanted] if alone else [wanted]
    for at, group in enumerate(groups):
        try:
            _run_group(suite, qa, scratch / f"run{at}", group, result)
        except RuntimeError as error:
            for name in group:
                result.tests[name] = ("failed", str(error)[-600:])
    return result


def _run_group(suite: Suite, qa: Path, scratch: Path, group: list[str], result: Result) -> None:
    repository = scratch / "models"
    repository.mkdir(parents=True)
    suite.build(repository, qa)
    settings: dict[str, str] = {}
    for glob, more in suite.settings.items():
        if len(group) == 1 and fnmatchcase(group[0], glob):
            settings |= more
    environment = {**os.environ, **suite.server_environment, **settings}
    log = scratch / "server.log"
    arguments = ["--compat", "triton", *suite.arguments]
    with servers.tuili(repository, log, *arguments, environment=environment) as server:
        client = _client(suite, qa, scratch / "client", server)
        (client / "models").symlink_to(repository)
        if suite.beside is not None:
            suite.beside(client, qa)
        client_environment = {
            **os.environ, **suite.environment, "PYTHONPATH": str(client), "SERVER_PID": str(server.process.pid),
            "TRITONSERVER_IPADDR": "127.0.0.1", **settings,
        }  # fmt: skip
        line = [
            sys.executable,
            "-m",
            "unittest",
            "-v",
            *(f"{Path(suite.file).stem}.{n}" for n in group),
        ]
        try:
            done = subprocess.run(
                line, cwd=client, env=client_environment, capture_output=True, text=True,
                timeout=suite.timeout_s, check=False,
            )  # fmt: skip
            output = done.stderr + done.stdout
        except subprocess.TimeoutExpired as late:
            output = (late.stderr or b"").decode(errors="replace")
        (scratch / "client.log").write_text(output)
    _read(output, group, result)


def _client(suite: Suite, qa: Path, folder: Path, server: servers.Server) -> Path:
    """The test and what it imports, with the ports of our server instead of the usual ones."""
    folder.mkdir(parents=True)
    files = [
        *(qa / "common").glob("*.py"),
        qa / suite.file,
        *(qa / each for each in suite.extra_files),
    ]
    for path in files:
        text = path.read_text()
        for name, usual in _PORTS.items():
            text = re.sub(rf"(?<![0-9]){usual}(?![0-9])", str(server.ports[name]), text)
        # What a newer Python lacks.
        text = text.replace("assertEquals(", "assertEqual(").replace("np.NINF", "-np.inf")
        text = text.replace("np.PINF", "np.inf")
        (folder / path.name).write_text(text.replace('sys.path.append("../common")', ""))
    return folder


def _tests_in(source: Path) -> list[str]:
    """`Class.method` of every test of a file."""
    found: list[str] = []
    current = ""
    for line in source.read_text().splitlines():
        opened = re.match(r"class (\w+)\(", line)
        method = re.match(r"    (?:async )?def (test_\w*)\(", line)
        if opened:
            current = opened.group(1)
        elif method and current:
            found.append(f"{current}.{method.group(1)}")
    return found


def _read(output: str, group: list[str], result: Result) -> None:
    """The results out of what `unittest -v` wrote."""
    blocks = dict(
        re.findall(
            r"^(?:ERROR|FAIL): (\w+) .*?\n-{20,}\n(.*?)\n(?=={20,}|-{20,}\n)",
            output,
            re.MULTILINE | re.DOTALL,
        )
    )
    for name in group:
        method = name.rpartition(".")[2]
        found = re.search(
            rf"^{method} \(.*?\.\.\. .*?(ok|FAIL|ERROR|skipped '(.*)'|skipped \"(.*)\")$",
            output,
            re.MULTILINE | re.DOTALL,
        )
        if found is None:
            result.tests[name] = ("failed", "did not end: " + output.strip()[-300:])
        elif found.group(1) == "ok":
            result.tests[name] = ("passed", "")
        elif found.group(1).startswith("skipped"):
            result.tests[name] = ("skipped", f"by itself: {found.group(2) or found.group(3)}")
        else:
            result.tests[name] = ("failed", blocks.get(method, "").strip()[-900:])


def copy(source: Path, target: Path) -> None:
    """Copy a model, and make the version folder that an ensemble needs."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    if not any(each.name.isdigit() for each in target.iterdir()):
        (target / "1").mkdir()
