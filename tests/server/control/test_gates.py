"""What holds a roll-out up or ends it, over a real data plane: gates, clocks, silence, crashes."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import pytest

from tests.end_to_end.conftest import one_node
from tests.server.control.test_rollouts import (
    ONE,
    PYTHON,
    QUICK,
    begin,
    events,
    identity,
    python,
    request,
    run,
    settle,
    state,
)
from tests.server.test_dataplane import infer
from tuili.errors import Conflict
from tuili.server.control import conductor
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.protocol.status import status_of

FOREVER = [QUICK | {"min_samples": 10**6}]
HARMLESS = {"steps": FOREVER, "metrics": {"error_rate": {}}}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def hook():
    """A webhook: `asked` is what it was told, `status` what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            server.asked.append(json.loads(self.rfile.read(length)))
            self.send_response(server.status)
            if server.status == 302:
                self.send_header("Location", server.url + "/log-in")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.status = [], 204
    server.url = f"http://127.0.0.1:{server.server_port}/may-i"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("when", "held", "after"),
    [
        ("before_start", "SCHEDULED", "RUNNING"),
        ("before_step", "RUNNING", "RUNNING"),
        ("before_promote", "RUNNING", "PROMOTED"),
    ],
)
def test_a_gate_is_asked_and_asked_again_until_it_agrees(tmp_path, hook, when, held, after):
    identity(tmp_path)
    hook.status = 403
    steps = [QUICK | {"min_samples": 0}, *FOREVER] if when == "before_step" else [QUICK]

    async def scenario(dataplane):
        clock = dataplane.conductor._clock = Clock()
        gates = [{"url": hook.url, "when": when}]
        await begin(dataplane, webhooks=gates, steps=steps)
        if when != "before_start":
            for number in range(600):
                await infer(dataplane, request(x_user_id=str(number)))
            await settle(dataplane)
        rollout = dataplane.conductor.world.rollout("r")
        assert (rollout.state.value, rollout.step) == (held, 0)
        assert "to agree: it answered 403" in dataplane.rollouts.show("r")["waits_for"]
        refused = len(hook.asked)
        await settle(dataplane)
        assert len(hook.asked) == refused  # not at every second
        hook.status = 204
        clock.now += 10
        await settle(dataplane)
        assert rollout.state.value == after
        assert rollout.step == (when == "before_step")
        assert dataplane.rollouts.show("r")["waits_for"] == ""

    run(tmp_path, scenario)
    asked = hook.asked[-1]
    assert (asked["when"], asked["model"]) == (when, "m")
    assert asked["next"] in ("started", "step", "promoting")


def test_a_gate_that_leads_to_a_page_for_logging_in_does_not_agree(tmp_path, hook):
    identity(tmp_path)
    hook.status = 302

    async def scenario(dataplane):
        await begin(dataplane, webhooks=[{"url": hook.url, "when": "before_start"}])
        assert state(dataplane) == "SCHEDULED"
        assert "it answered 302" in dataplane.rollouts.show("r")["waits_for"]

    run(tmp_path, scenario)


def test_a_gate_that_is_down_holds_and_an_observer_that_is_down_does_not(tmp_path):
    identity(tmp_path)
    nobody = "http://127.0.0.1:9/x"

    async def scenario(dataplane):
        hooks = [{"url": nobody, "when": "event"}, {"url": nobody, "when": "before_start"}]
        await begin(dataplane, webhooks=hooks)
        assert state(dataplane) == "SCHEDULED"
        assert "Connection refused" in dataplane.rollouts.show("r")["waits_for"]

    run(tmp_path, scenario)


def test_observers_hear_of_every_event(tmp_path, hook):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, webhooks=[{"url": hook.url, "when": "event"}], **HARMLESS)
        await dataplane.rollouts.act("r", "abort", "ann", "enough")
        await asyncio.gather(*dataplane.conductor._tasks)

    run(tmp_path, scenario)
    told = {each["event"]: each for each in hook.asked}
    assert set(told) == {"created", "started", "loaded", "aborted"}
    assert (told["aborted"]["who"], told["aborted"]["why"]) == ("ann", "enough")
    assert told["loaded"]["digest"].startswith("sha256:")


@pytest.mark.parametrize("form", [float, lambda at: time.strftime("%FT%TZ", time.gmtime(at))])
def test_a_roll_out_starts_when_its_time_has_come(tmp_path, monkeypatch, form):
    identity(tmp_path)
    now = 1_800_000_000.0
    monkeypatch.setattr(conductor.time, "time", lambda: now)

    async def scenario(dataplane):
        nonlocal now
        await begin(dataplane, start_at=form(now + 60), **HARMLESS)
        assert state(dataplane) == "SCHEDULED"
        assert (await infer(dataplane, request())).parameters is None
        now += 61
        await settle(dataplane)
        assert state(dataplane) == "RUNNING"

    run(tmp_path, scenario)


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_jump_of_the_wall_clock_decides_nothing(tmp_path, monkeypatch, jump_s):
    identity(tmp_path)
    wall = time.time

    async def scenario(dataplane):
        clock = dataplane.conductor._clock = Clock()
        await begin(dataplane, steps=[QUICK | {"min_time_s": 60, "max_time_s": 3600}])
        for number in range(600):
            await infer(dataplane, request(x_user_id=str(number)))
        monkeypatch.setattr(conductor.time, "time", lambda: wall() + jump_s)
        await settle(dataplane)
        assert state(dataplane) == "RUNNING"
        assert "0 of 60 s" in dataplane.rollouts.show("r")["verdicts"]["candidate"]["why"]
        clock.now += 61
        await settle(dataplane)
        return state(dataplane)

    assert run(tmp_path, scenario) == "PROMOTED"


def test_without_numbers_nothing_is_decided(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        clock = dataplane.conductor._clock = Clock()
        # A rule keeps everybody away from the candidate, as a broken proxy would.
        rules = [{"variant": "stable", "header": "x-user-id"}]
        await begin(
            dataplane, routing={"rules": rules}, guards={"silence_s": 30},
            steps=[QUICK | {"min_samples": 0, "min_time_s": 600}],
        )  # fmt: skip
        for _ in range(4):
            for number in range(40):
                await infer(dataplane, request(x_user_id=str(number)))
            clock.now += 11
            await dataplane.conductor.tick()
        return state(dataplane), dataplane.conductor.world.rollout("r").why

    found = run(tmp_path, scenario)
    text = "candidate has answered nothing for 33 s: without numbers nothing is decided"
    assert found == ("HOLDING", text)


def test_a_split_that_is_not_what_was_asked_for_holds(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, steps=FOREVER, metrics={"error_rate": {}})
        dataplane.conductor.reconciler.splits["m"].router._chance = lambda: 0.99
        for _ in range(60):
            await infer(dataplane, request())
        await settle(dataplane)
        return state(dataplane), dataplane.conductor.world.rollout("r").why

    where, why = run(tmp_path, scenario)
    assert where == "HOLDING"
    assert "the split is not what was asked for" in why
    assert "stable 60 (100.00 % instead of 50.00 %)" in why


def test_blue_green_sends_everybody_over_at_once_and_goes_back_as_fast(tmp_path):
    python(tmp_path, run="return {'y': x if x[0, 0] < 5 else int('bad weights')}")

    async def scenario(dataplane):
        shown = await dataplane.rollouts.create(
            {"model": "m", "candidate": 2, "kind": "blue_green", "dry_run": True}, "me"
        )
        assert [step["weight"] for step in shown["steps"]] == [100]
        await begin(dataplane, kind="blue_green", steps=[{"weight": 100, "min_samples": 10**6}])
        seen = {(await infer(dataplane, request())).version for _ in range(20)}
        assert seen == {"2"}
        for _ in range(20):
            answer = await infer(dataplane, request(9.0))
            assert answer.version == "1"  # no answer is lost to the candidate
        await settle(dataplane)
        return state(dataplane)

    assert run(tmp_path, scenario) == "ROLLED_BACK"


def test_a_candidate_whose_process_dies_is_sent_back_and_no_answer_is_lost(tmp_path):
    python(tmp_path, run="__import__('os')._exit(9) if x[0, 0] > 5 else 0; return {'y': x}")
    config = (PYTHON + ONE).replace('"none"', '"process"')
    (tmp_path / "m" / "config.pbtxt").write_text(config)

    async def scenario(dataplane):
        await begin(dataplane, **HARMLESS)
        split = dataplane.conductor.reconciler.splits["m"]
        first = split.live("candidate").hosts[0]
        for number in range(40):
            value = 9.0 if number == 20 else 1.0
            answer = await infer(dataplane, request(value, x_tuili_variant="candidate"))
            assert answer.outputs[0].data[0, 0] == value
        assert first.policy.deaths > 0
        await settle(dataplane)
        assert (await infer(dataplane, request(9.0))).version == "1"
        return state(dataplane), dataplane.conductor.world.rollout("r").why

    where, why = run(tmp_path, scenario)
    assert where == "ROLLED_BACK"
    assert "the candidate's process died" in why


@pytest.mark.parametrize(("allowed", "ends"), [(False, "ROLLED_BACK"), (True, "RUNNING")])
def test_a_candidate_with_other_inputs_is_refused_unless_allowed(tmp_path, allowed, ends):
    for number, width in ((1, 2), (2, 3)):
        (tmp_path / "m" / str(number)).mkdir(parents=True)
        model = one_node("Relu", "FLOAT", ["N", width])
        onnx.save(model, tmp_path / "m" / str(number) / "model.onnx")
    text = 'parameters { key: "executor" value { string_value: "onnxruntime" } }'
    text += 'parameters { key: "isolation" value { string_value: "none" } }'
    (tmp_path / "m" / "config.pbtxt").write_text(text + ONE)

    async def scenario(dataplane):
        await begin(dataplane, allow_signature_change=allowed, **HARMLESS)
        data = np.ones((1, 2), np.float32)
        asked = InferRequest("m", [InputTensor("x", "FP32", (1, 2), data)])
        assert (await infer(dataplane, asked)).version == "1"
        assert state(dataplane) == ends
        return dataplane.conductor.world.rollout("r").why

    why = run(tmp_path, scenario)
    assert allowed or "another signature: x is FP32[3] instead of FP32[2]" in why


def test_of_two_operators_at_once_one_is_told_to_look_again(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, **HARMLESS)
        acts = [dataplane.rollouts.act("r", what, who) for what, who in
                (("pause", "ann"), ("abort", "bob"))]  # fmt: skip
        done = await asyncio.gather(*acts, return_exceptions=True)
        (refused,) = [each for each in done if isinstance(each, Exception)]
        assert isinstance(refused, Conflict)
        assert status_of(refused).http == 409
        assert "'m' has moved on" in str(refused)
        return (await events(dataplane))[3:]

    assert run(tmp_path, scenario) in (["paused"], ["aborted"])
