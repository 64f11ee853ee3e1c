"""Triton's perf_analyzer measures this server; skipped where the tool is not installed."""

import re
import shutil
import subprocess

import pytest

from tests.end_to_end.conftest import add_identity, serving

TOOL = shutil.which("perf_analyzer")


def runs(path):
    """Whether the program is there with the libraries that it needs."""
    return path and subprocess.run([path, "--version"], capture_output=True, check=False)


FOUND = runs(TOOL)
pytestmark = pytest.mark.skipif(
    not FOUND or FOUND.returncode != 0,
    reason="perf_analyzer is not installed: see docs/how-to/load-a-server.md",
)
# How long is measured does not matter here, and steadiness neither.
SHORT = ("--measurement-mode", "count_windows", "--measurement-request-count", "50",
         "-p", "100", "-s", "99999", "-r", "3")  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    add_identity(repository, "echo")
    with serving(repository, "--allow-client-shm") as found:
        yield found


@pytest.mark.parametrize(
    "options",
    [
        ("-i", "http"),
        ("-i", "grpc"),
        ("-i", "grpc", "--streaming"),
        ("-i", "http", "--shared-memory", "system"),
        ("-i", "grpc", "--shared-memory", "system", "--async"),
        ("-i", "http", "-b", "2", "--concurrency-range", "1:3:2"),
        ("-i", "grpc", "--request-rate-range", "200", "--async"),
        ("-i", "grpc", "--trace-level", "TIMESTAMPS", "--trace-rate", "10"),
        ("-i", "http", "--collect-metrics", "--metrics-url", "{metrics}/metrics"),
    ],
    ids=" ".join,
)
def test_it_measures(server, options):
    given = [each.format(metrics=server.url("metrics")) for each in options]
    done = subprocess.run(
        [TOOL, "-m", "echo", "-u", server.url(options[1]), *SHORT, *given],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Successful request count: [1-9]", done.stdout), done.stdout
    assert "throughput: 0 " not in done.stdout
