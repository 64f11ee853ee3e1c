"""`tuili rollout`, `history`, `rollback`, `label`: what they ask a server, and what they print."""

import json

import pytest
from typer.testing import CliRunner

from tuili.cli import rollout
from tuili.cli.main import app

FOUND = {
    "name": "r", "model": "m", "state": "RUNNING", "step": 0, "steps": 2, "stable": 1,
    "candidates": {"candidate": 2}, "weights": {"candidate": 5.0}, "why": "asked for",
    "verdicts": {"candidate": {"outcome": "CONTINUE", "why": "step 0 waits for 3 of 30 s"}},
    "here": {"candidate": {"requests": 7, "errors": 0}},
    "waits_for": "waiting for http://gate to agree: it answered 403 Forbidden", "trouble": "",
}  # fmt: skip
ENTRY = {
    "seq": 3, "at": 0.0, "model": "m", "who": "ann", "event": "pointer", "why": "3 is odd",
    "numbers": {"version": 2},
}  # fmt: skip
SERVER = "http://127.0.0.1:9"


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Runs a command against a server that answers `found`: (what it was asked, output, code)."""
    monkeypatch.setenv("COLUMNS", "200")
    plan = tmp_path / "plan.json"
    plan.write_text('{"model": "m", "candidate": 2}')

    def run(line, found):
        asked = []

        def call(server, method, path, body=None, kind="application/json"):
            assert server == SERVER
            asked.append((method, path, body and body.decode()))
            return found

        monkeypatch.setattr(rollout, "call", call)
        words = [str(plan) if word == "PLAN" else word for word in line.split()]
        done = CliRunner().invoke(app, [*words, "--server", SERVER])
        return asked, done.output, done.exit_code

    return run


def why(text="", **more):
    return json.dumps({"why": text, **more})


@pytest.mark.parametrize(
    ("line", "found", "asked", "printed"),
    [
        ("rollout start PLAN", FOUND,
         ("POST", "/v2/rollouts", '{"model": "m", "candidate": 2}'), "r RUNNING step 1 of 2"),
        ("rollout start PLAN --dry-run", {"dry_run": True},
         ("POST", "/v2/rollouts?dry_run=true", '{"model": "m", "candidate": 2}'), '"dry_run"'),
        ("rollout list", {"rollouts": [FOUND]}, ("GET", "/v2/rollouts", None), "candidate=2"),
        ("rollout show r", FOUND, ("GET", "/v2/rollouts/r", None), "3 of 30 s"),
        ("rollout show r", FOUND, ("GET", "/v2/rollouts/r", None), "it answered 403"),
        ("rollout show r", FOUND, ("GET", "/v2/rollouts/r", None), "candidate here: requests 7"),
        ("rollout show r --json", FOUND, ("GET", "/v2/rollouts/r", None), '"verdicts"'),
        ("rollout pause r --why lunch", FOUND,
         ("POST", "/v2/rollouts/r/pause", why("lunch")), "r RUNNING"),
        ("rollout resume r", FOUND, ("POST", "/v2/rollouts/r/resume", why()), "r RUNNING"),
        ("rollout abort r", FOUND, ("POST", "/v2/rollouts/r/abort", why()), "r RUNNING"),
        ("rollout promote r", FOUND, ("POST", "/v2/rollouts/r/promote", why()), "r RUNNING"),
        ("history m --since 2", {"entries": [ENTRY]},
         ("GET", "/v2/models/m/history?since=2", None), "pointer 2"),
        ("history", {"entries": [ENTRY]}, ("GET", "/v2/history?since=0", None), "3 is odd"),
        ("rollback m --to 1", {"version": 1, "before": 2},
         ("POST", "/v2/models/m/rollback", why(version=1)), "version 1 answers, before 2"),
        ("label m", {"labels": {"stable": 2}}, ("GET", "/v2/models/m/labels", None), "stable -> 2"),
        ("label m beta 2", {"labels": {"beta": 2}},
         ("POST", "/v2/models/m/labels/beta", '{"version": 2}'), "beta -> 2"),
        ("label m beta --remove", {"labels": {}},
         ("DELETE", "/v2/models/m/labels/beta", None), ""),
    ],
)  # fmt: skip
def test_a_command_is_one_request_and_its_answer_in_words(ask, line, found, asked, printed):
    requests, output, code = ask(line, found)
    assert code == 0, output
    assert requests == [asked]
    assert printed in output


@pytest.mark.parametrize(("state", "code"), [("PROMOTED", 0), ("ROLLED_BACK", 1), ("ABORTED", 1)])
def test_watching_ends_with_the_roll_out(ask, state, code):
    requests, output, ended = ask("rollout watch r", {**FOUND, "state": state, "weights": {}})
    assert requests == [("GET", "/v2/rollouts/r", None)]
    assert output.strip() == f"r {state} asked for"
    assert ended == code
