"""`tuili bench --server` loads a real server over every protocol, and judges its answers."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.end_to_end.conftest import add_identity, serving
from tuili.cli.main import app

QUICK = ["--window", "0.1", "--windows", "3", "--warm-up", "0.05"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    add_identity(repository, "small", dims="16")
    add_identity(repository, "big", dims="3, 224, 224")
    with serving(repository, "--allow-client-shm") as found:
        yield found


def bench(server, protocol, *arguments):
    url = f"{protocol}://{server.url(protocol)}"
    return CliRunner().invoke(app, ["bench", *arguments, "--server", url, *QUICK])


@pytest.mark.parametrize("model", ["small", "big"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("memory", [[], ["--shared-memory"]], ids=["wire", "shared"])
def test_all_answers_are_right(server, protocol, model, memory, tmp_path):
    path = tmp_path / "levels.json"
    done = bench(server, protocol, model, "--concurrency", "1,4", "--json", str(path), *memory)
    assert done.exit_code == 0, done.output
    levels = json.loads(path.read_text())["levels"]
    assert [level["load"] for level in levels] == [1, 4]
    assert all(level["window"][kind] == 0 for level in levels for kind in ("wrong", "lost"))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_open_loop_sends_at_its_rate(server, protocol, tmp_path):
    path = tmp_path / "levels.csv"
    done = bench(server, protocol, "small", "--rate", "100", "--csv", str(path))
    assert done.exit_code == 0, done.output
    (row,) = csv.DictReader(path.open())
    assert 0 < float(row["answers_per_s"]) < 200


def test_grpc_calls_may_share_connections(server):
    done = bench(server, "grpc", "big", "--concurrency", "8", "--connections", "2")
    assert done.exit_code == 0, done.output


def test_the_largest_rate_within_a_promise_is_found(server):
    done = bench(server, "http", "small", "--slo-ms", "1000", "--json-tensors")
    assert done.exit_code == 0, done.output
    assert "p99 stays below 1000 ms up to" in done.output


def test_a_picture_is_drawn(server, tmp_path):
    done = bench(server, "http", "small", "--plot", str(tmp_path / "load.svg"))
    assert done.exit_code == 0, done.output
    assert "<svg" in (tmp_path / "load.svg").read_text()


def test_answers_that_differ_from_what_is_expected_fail_the_run(server, tmp_path):
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    np.savez(tmp_path / "in.npz", x=x)
    np.savez(tmp_path / "right.npz", y=x)
    np.savez(tmp_path / "wrong.npz", y=x + 1)
    given = ["small", "--inputs", str(tmp_path / "in.npz")]
    assert bench(server, "http", *given, "--expect", str(tmp_path / "right.npz")).exit_code == 0
    done = bench(server, "http", *given, "--expect", str(tmp_path / "wrong.npz"))
    assert done.exit_code == 1
    assert "output 'y' has other values than expected" in str(done.exception) + done.output


def test_a_server_that_is_not_there_is_told(server):
    done = CliRunner().invoke(app, ["bench", "m", "--server", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "no server at 127.0.0.1:1" in done.output
