"""Roll-outs over a real data plane: who answers, what is counted, what is decided."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.server.test_dataplane import IDENTITY, infer
from tuili.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from tuili.server.control import conductor
from tuili.server.control.conductor import signature_gap
from tuili.server.dataplane import DataPlane
from tuili.server.options import ServerOptions
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.rollout.history import Entry

ONE = "version_policy { specific { versions: 1 } }"
QUICK = {"weight": 50, "min_time_s": 0, "min_samples": 5}
PLAN = {
    "model": "m", "name": "r", "candidate": 2,
    "metrics": {"error_rate": {"margin": 0.2}}, "steps": [QUICK],
}  # fmt: skip
PYTHON = (
    IDENTITY.replace('"identity"', '"python"')
    + 'parameters { key: "isolation" value { string_value: "none" } }'
)
MODEL = """
import numpy as np
class Model:
    def __init__(self, parameters): {init}
    def run(self, inputs):
        x = inputs["x"]
        {run}
"""


def version(repository, number, *, run='return {"y": x}', init="pass", model="m"):
    folder = repository / model / str(number)
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL.format(run=run, init=init))


def identity(repository, model="m", versions=(1, 2), extra=ONE):
    for number in versions:
        (repository / model / str(number)).mkdir(parents=True)
    (repository / model / "config.pbtxt").write_text(IDENTITY + extra)


def python(repository, **second):
    version(repository, 1)
    version(repository, 2, **second)
    (repository / "m" / "config.pbtxt").write_text(PYTHON + ONE)


FAILING = "return {'y': x if not x.any() else int('bad weights')}"


class Origin:
    def __init__(self, **headers):
        self.headers = headers

    def header(self, name):
        return self.headers.get(name.replace("-", "_"), "")

    def address(self):
        return "127.0.0.1"


def request(value=1.0, model="m", ident="", parameters=None, **headers):
    data = np.full((1, 2), value, np.float32)
    return InferRequest(model, [InputTensor("x", "FP32", (1, 2), data)], id=ident,
                        parameters=parameters, origin=Origin(**headers))  # fmt: skip


async def settle(dataplane):
    """Let loads under way end and their consequences be drawn."""
    for _ in range(4):
        await dataplane.conductor.reconciler.settle()
        await dataplane.conductor.tick()


async def begin(dataplane, **changes):
    shown = await dataplane.rollouts.create(PLAN | changes, "me")
    await settle(dataplane)
    return shown


def state(dataplane, name="r"):
    return dataplane.conductor.world.rollout(name).state.value


def events(dataplane):
    async def read():
        return [e["event"] for e in (await dataplane.rollouts.history())["entries"]]

    return read()


def run(repository, scenario, **options):
    async def started():
        dataplane = DataPlane(ServerOptions(repository=(repository,), **options))
        await dataplane.start()
        dataplane._conducting.cancel()  # the test ticks itself
        try:
            return await scenario(dataplane)
        finally:
            assert await dataplane.close(10)

    return asyncio.run(started())


def test_without_a_roll_out_there_is_no_file_and_no_split(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await settle(dataplane)
        answer = await infer(dataplane, request())
        return answer.version, answer.parameters, dataplane.conductor.reconciler.splits

    assert run(tmp_path, scenario) == ("1", None, {})
    assert not (tmp_path / ".tuili").exists()


def test_a_good_candidate_is_promoted_and_stays_so_after_a_restart(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane)
        assert state(dataplane) == "RUNNING"
        seen = set()
        for number in range(600):
            answer = await infer(dataplane, request(x_user_id=str(number)))
            seen.add((answer.version, answer.parameters["tuili_variant"]))
        assert seen == {("1", "stable"), ("2", "candidate")}
        await settle(dataplane)
        assert state(dataplane) == "PROMOTED"
        assert (await infer(dataplane, request())).version == "2"
        assert dataplane.rollouts.labels("m")["labels"] == {"stable": 2}
        return await events(dataplane)

    assert run(tmp_path, scenario) == ["created", "started", "loaded", "promoting", "pointer"]

    async def again(dataplane):
        return (await infer(dataplane, request())).version, dataplane.model_metadata("m")[
            "versions"
        ]

    assert run(tmp_path, again) == ("2", ["1", "2"])


def test_a_crash_of_the_server_in_the_middle_resumes(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane)
        return state(dataplane)

    assert run(tmp_path, scenario) == "RUNNING"

    async def again(dataplane):
        dataplane.conductor._leadership._changed_at = -100.0
        dataplane.conductor._leadership._seen = (await dataplane.conductor.store()).lease()
        await settle(dataplane)
        variants = {(await infer(dataplane, request(x_user_id=str(i)))).version for i in range(50)}
        return state(dataplane), variants

    assert run(tmp_path, again) == ("RUNNING", {"1", "2"})


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (
            {"run": "return {'y': x if not x.any() else int('bad weights')}"},
            "error burst: .*bad weights",
        ),
        ({"run": "return {'y': x * np.nan}"}, "answers of the candidate hold NaN"),
        ({"init": "raise OSError('no such file')"}, "it does not load: .*no such file"),
    ],
)
def test_bad_candidates_are_sent_back_and_no_client_notices(tmp_path, second, text):
    python(tmp_path, **second)

    async def scenario(dataplane):
        await begin(dataplane)
        for number in range(80):
            answer = await infer(dataplane, request(x_user_id=str(number)))
            assert answer.outputs[0].data.shape == (1, 2)
        await settle(dataplane)
        await settle(dataplane)
        assert state(dataplane) == "ROLLED_BACK"
        assert dataplane.server_ready()
        assert (await infer(dataplane, request())).version == "1"
        return dataplane.conductor.world.rollout("r").why

    with pytest.raises(AssertionError, match=text):
        raise AssertionError(run(tmp_path, scenario))


def signature(dims=(2,), datatype="FP32", batch=8, **more):
    rule = SimpleNamespace(datatype=datatype, dims=dims)
    one = SimpleNamespace(inputs={"x": rule}, outputs={"y": rule, **more}, max_batch_size=batch)
    return SimpleNamespace(signature=one)


@pytest.mark.parametrize(
    ("candidate", "text"),
    [
        (signature(), ""),
        (signature(batch=16), ""),
        (signature(dims=(3,)), "x is FP32[3] instead of FP32[2]"),
        (signature(datatype="INT8"), "x is INT8[2] instead of FP32[2]"),
        (signature(z=None), "outputs ['y', 'z'] instead of ['y']"),
        (signature(batch=1), "max_batch_size 1 instead of 8"),
    ],
)
def test_a_signature_differs_where_a_client_would_notice(candidate, text):
    assert signature_gap(signature(), candidate) == text


@pytest.mark.parametrize(("allowed", "ends"), [(False, "ROLLED_BACK"), (True, "RUNNING")])
def test_another_signature_is_refused_unless_allowed(tmp_path, monkeypatch, allowed, ends):
    identity(tmp_path)
    monkeypatch.setattr(conductor, "signature_gap", lambda a, b: "y is gone")

    async def scenario(dataplane):
        steps = [QUICK | {"min_samples": 10**6}]
        await begin(dataplane, steps=steps, allow_signature_change=allowed)
        assert state(dataplane) == ends
        return dataplane.conductor.world.rollout("r").why

    assert allowed or "has another signature: y is gone" in run(tmp_path, scenario)


def test_shadow_answers_reach_nobody_and_no_public_number(tmp_path):
    python(tmp_path, run='return {"y": x[:, ::-1] if x[0, 0] > 5 else x}')
    folder = tmp_path / "captured"

    async def scenario(dataplane):
        await begin(
            dataplane,
            steps=[{"shadow": 100, "min_samples": 10**6}, QUICK],
            capture={"folder": str(folder), "most": 2},
            comparison={"max_inflight": 1000},
        )
        for number in range(40):
            asked = request(float(number % 10))
            asked.inputs[0].data[0, 1] = 0.0
            answer = await infer(dataplane, asked)
            assert answer.version == "1"
        await asyncio.sleep(0)
        for _ in range(200):
            if dataplane.conductor.reconciler.splits["m"].shadow._inflight == 0:
                break
            await asyncio.sleep(0.005)
        tally = dataplane.conductor.reconciler.splits["m"].tallies["candidate"]
        stats = {s["version"]: s["inference_stats"]["success"]["count"]
                 for s in dataplane.model_statistics("m")["model_stats"]}  # fmt: skip
        assert (tally.compared, tally.differing) == (40, 16)
        assert stats == {"1": 40, "2": 0}
        assert "rows have another top class" in tally.note

    run(tmp_path, scenario)
    kept = sorted(folder.glob("*.npz"))
    assert len(kept) == 2
    with np.load(kept[0]) as found:
        assert {"input.x", "stable.y", "candidate.y", "why"} == set(found.files)


def test_shadows_are_the_first_to_go_under_load(tmp_path):
    python(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, steps=[{"shadow": 100, "min_samples": 10**6}, QUICK])
        await asyncio.gather(*(infer(dataplane, request()) for _ in range(60)))
        tally = dataplane.conductor.reconciler.splits["m"].tallies["candidate"]
        return tally.shed

    assert run(tmp_path, scenario) > 0


def test_pause_resume_abort_and_what_cannot_be(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, steps=[QUICK | {"min_samples": 10**6}])
        await dataplane.rollouts.act("r", "pause", "ann", "lunch")
        assert state(dataplane) == "PAUSED"
        with pytest.raises(InvalidArgument, match="'r' is PAUSED: 'paused' cannot happen now"):
            await dataplane.rollouts.act("r", "pause", "bob")
        with pytest.raises(InvalidArgument, match="unknown action 'stop'; known: pause"):
            await dataplane.rollouts.act("r", "stop", "bob")
        await dataplane.rollouts.act("r", "resume", "ann")
        with pytest.raises(InvalidArgument, match="has roll-out 'r' .*one at a time"):
            await dataplane.rollouts.create(PLAN | {"name": "s"}, "bob")
        await dataplane.rollouts.act("r", "abort", "ann", "enough")
        await settle(dataplane)
        assert (await infer(dataplane, request())).parameters is None
        assert [v for v in dataplane.repository.live["m"] if v] == ["1"]
        entries = (await dataplane.rollouts.history("m"))["entries"]
        assert [(e["who"], e["why"]) for e in entries if e["event"] in ("paused", "aborted")] == [
            ("ann", "lunch"), ("ann", "enough"),
        ]  # fmt: skip

    run(tmp_path, scenario)


def test_a_dry_run_changes_nothing(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        shown = await dataplane.rollouts.create(PLAN | {"dry_run": True}, "me")
        assert shown["steps"][0]["metrics"]["error_rate"]["proves_below"] == 0.2
        assert json.dumps(shown)
        assert dataplane.conductor.world.rollouts == {}

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"model": "x"}, NotFound, "model 'x' is not in the repository"),
        ({"candidate": 9}, InvalidArgument, "version 9 of 'm', which is not in the repository"),
        ({"candidate": 1}, InvalidArgument, "version 1, which is the stable one"),
        ({"stable": 2, "candidate": 1}, InvalidArgument, "the stable version 2 .* is not loaded"),
    ],
)
def test_roll_outs_of_what_is_not_there(tmp_path, changes, kind, text):
    identity(tmp_path)

    async def scenario(dataplane):
        with pytest.raises(kind, match=text):
            await dataplane.rollouts.create(PLAN | changes, "me")

    run(tmp_path, scenario)


def test_a_candidate_that_is_being_copied_is_none_yet(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        with (
            (tmp_path / "m" / "2" / "weights.bin").open("wb"),
            pytest.raises(InvalidArgument, match="candidate is version 2, and not whole yet: "),
        ):
            await dataplane.rollouts.create(PLAN, "me")
        await begin(dataplane)
        assert state(dataplane) == "RUNNING"

    run(tmp_path, scenario)


def test_labels_point_only_to_loaded_versions_and_answer(tmp_path):
    identity(tmp_path, extra="version_policy { all {} }", versions=(1, 2))

    async def scenario(dataplane):
        with pytest.raises(InvalidArgument, match="may point only to a loaded version; version 7"):
            await dataplane.rollouts.label("m", "beta", 7, "me")
        with pytest.raises(InvalidArgument, match="'stable' and 'candidate' follow roll-outs"):
            await dataplane.rollouts.label("m", "stable", 1, "me")
        await dataplane.rollouts.label("m", "beta", 1, "me")
        asked = request()
        asked.version = "beta"
        assert (await infer(dataplane, asked)).version == "1"
        assert dataplane.rollouts.labels("m")["labels"] == {"beta": 1, "stable": 2}
        await dataplane.rollouts.label("m", "beta", None, "me")
        with pytest.raises(NotFound, match="has no label 'beta'"):
            await dataplane.rollouts.label("m", "beta", None, "me")

    run(tmp_path, scenario)


def test_rollback_goes_to_the_version_before(tmp_path):
    identity(tmp_path, versions=(1, 2, 3), extra="")

    async def scenario(dataplane):
        assert (await infer(dataplane, request())).version == "3"
        await dataplane.rollouts.rollback("m", 2, "me", "3 is odd")
        assert (await infer(dataplane, request())).version == "2"
        await dataplane.rollouts.rollback("m", 1, "me")
        await dataplane.rollouts.rollback("m", None, "me")
        assert (await infer(dataplane, request())).version == "2"

    run(tmp_path, scenario)


def test_a_sequence_keeps_its_variant_through_a_ramp(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        steps = [{"weight": w, "min_time_s": 0, "min_samples": 0} for w in (1, 100)]
        steps[0]["min_samples"] = 10**6
        await begin(dataplane, steps=steps, metrics={"error_rate": {}})
        split = dataplane.conductor.reconciler.splits["m"]

        def ask(number, **more):
            return request(parameters={"sequence_id": number, **more}, x_user_id=f"s{number}")

        before = {i: (await infer(dataplane, ask(i, sequence_start=True))).version
                  for i in range(1, 60)}  # fmt: skip
        split.rollout.step = 1
        split.rollout.round += 1
        split.follow()
        after = {i: (await infer(dataplane, ask(i))).version for i in before}
        assert after == before
        fresh = {(await infer(dataplane, ask(i, sequence_start=True))).version
                 for i in range(100, 110)}  # fmt: skip
        assert fresh == {"2"}

    run(tmp_path, scenario)


ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling {
  step { model_name: "m" model_version: -1
    input_map { key: "x" value: "x" } output_map { key: "y" value: "t" } }
  step { model_name: "m" model_version: -1
    input_map { key: "x" value: "t" } output_map { key: "y" value: "y" } }
}
"""


def test_a_dag_chooses_once_for_all_its_steps(tmp_path):
    version(tmp_path, 1, run='return {"y": x + 1}')
    version(tmp_path, 2, run='return {"y": x + 10}')
    (tmp_path / "m" / "config.pbtxt").write_text(PYTHON + ONE)
    (tmp_path / "e" / "1").mkdir(parents=True)
    (tmp_path / "e" / "config.pbtxt").write_text(ENSEMBLE)

    async def scenario(dataplane):
        await begin(dataplane, steps=[QUICK | {"min_samples": 10**6}], metrics={"error_rate": {}})
        found = set()
        for _ in range(60):  # no user: chance decides, once
            answer = await infer(dataplane, request(0.0, "e"))
            found.add(float(answer.outputs[0].data[0, 0]))
        return found

    assert run(tmp_path, scenario) == {2.0, 20.0}


def test_feedback_finds_its_variant_by_request(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        with pytest.raises(NotFound, match="has no roll-out under way"):
            dataplane.rollouts.feedback("m", {"value": 1})
        await begin(dataplane, steps=[QUICK | {"min_samples": 10**6}], metrics={"error_rate": {}})
        answer = await infer(dataplane, request(ident="r1", x_user_id="u"))
        counted = dataplane.rollouts.feedback("m", {"request_id": "r1", "name": "c", "value": 0.5})
        assert counted == {"variant": answer.parameters["tuili_variant"]}
        with pytest.raises(InvalidArgument, match="a 'value' from 0 to 1, got 'score', 7"):
            dataplane.rollouts.feedback("m", {"request_id": "r1", "value": 7})
        with pytest.raises(NotFound, match="no answer with id 'r2' is remembered"):
            dataplane.rollouts.feedback("m", {"request_id": "r2", "value": 1})

    run(tmp_path, scenario)


def test_the_metrics_of_variants_parse(tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, steps=[QUICK | {"min_samples": 10**6}], metrics={"error_rate": {}})
        await infer(dataplane, request())
        return {f.name for f in parser.text_string_to_metric_families(dataplane.metrics_text())}

    found = run(tmp_path, scenario)
    assert {"tuili_rollout_state", "tuili_variant_requests", "tuili_variant_weight"} <= found


def test_on_a_full_disk_nothing_is_decided_but_a_crashing_candidate_goes(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, steps=[QUICK | {"min_samples": 10**6}], metrics={"error_rate": {}})
        store = await dataplane.conductor.store()

        def full(*_):
            raise Unavailable("cannot write the journal: disk is full")

        store.append = full
        split = dataplane.conductor.reconciler.splits["m"]
        split.tallies["candidate"].crashes = 1
        await dataplane.conductor.tick()
        assert "disk is full" in dataplane.rollouts.show("r")["trouble"]
        assert state(dataplane) == "RUNNING"
        found = {(await infer(dataplane, request(x_user_id=str(i)))).version for i in range(40)}
        assert found == {"1"}
        del store.append
        await settle(dataplane)
        assert state(dataplane) == "ROLLED_BACK"

    run(tmp_path, scenario)


def test_two_operators_at_once_one_wins(tmp_path):
    identity(tmp_path)

    async def scenario(dataplane):
        await begin(dataplane, steps=[QUICK | {"min_samples": 10**6}], metrics={"error_rate": {}})
        conductor = dataplane.conductor
        store = await conductor.store()
        known = conductor.world.model("m").last_seq
        store.append(Entry("m", "paused", "bob", rollout="r"), known)
        with pytest.raises(AlreadyExists, match="has moved on"):
            await conductor.append(Entry("m", "aborted", "ann", rollout="r"))
        await conductor.read_new()
        assert state(dataplane) == "PAUSED"

    run(tmp_path, scenario)


def test_unloading_an_ensemble_with_its_parts_leaves_those_that_another_needs(tmp_path):
    identity(tmp_path, versions=(1,), extra="")
    for name in ("e", "f"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(ENSEMBLE)

    async def scenario(dataplane):
        await dataplane.repository_unload("e", unload_dependents=True)
        assert [dataplane.model_ready(name) for name in ("e", "f", "m")] == [False, True, True]
        await dataplane.repository_unload("f", unload_dependents=True)
        assert not dataplane.model_ready("m")

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("*",))
