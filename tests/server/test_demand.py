"""Models are loaded when a request comes for them, and go when others need their memory."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from tests.runtime.native_models import twice
from tests.server.control.test_rollouts import ENSEMBLE, MODEL, PYTHON
from tests.server.http.wire import Wire
from tests.server.http.wire import request as http_request
from tests.server.test_dataplane import IDENTITY, infer, request, run
from tuili.errors import InvalidModel, NotFound, NotPolled, Unavailable
from tuili.server import demand
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor

MB = 1 << 20


def add(repository, name, *, size=MB, extra="", config=IDENTITY):
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    if size:
        (folder / "weights.bin").write_bytes(bytes(size))
    (repository / name / "config.pbtxt").write_text(config + extra)


def on_demand(repository, scenario, budget=0, **options):
    return run(
        repository, scenario, model_control_mode="demand", memory_budget_bytes=budget, **options
    )


def live(dataplane):
    return sorted(dataplane.repository.live)


def test_nothing_is_loaded_before_a_request_comes(tmp_path):
    for name in "ab":
        add(tmp_path, name)

    async def scenario(dataplane):
        assert dataplane.server_ready()
        assert live(dataplane) == []
        assert dataplane.model_ready("a")
        assert (await infer(dataplane, request("a"))).version == "1"
        return live(dataplane)

    assert on_demand(tmp_path, scenario) == ["a"]


@pytest.mark.parametrize(
    ("route", "body", "headers"),
    [
        ("v2/models/a/generate", {"x": [1, 2]}, {}),
        ("v2/models/a/generate_stream", {"x": [1, 2]}, {}),
        ("v2/models/a/infer", bytes(8), {"Inference-Header-Content-Length": "0"}),
        ("v2/models/a/jobs", bytes(8), {"Inference-Header-Content-Length": "0"}),
        ("v1/models/a:predict", {"instances": [[1, 2]]}, {}),
    ],
)
def test_routes_that_read_metadata_first_load_the_model_too(tmp_path, route, body, headers):
    add(tmp_path, "a")

    async def scenario(dataplane):
        wire = Wire(dataplane=dataplane)
        answered = asyncio.Event()
        wire.transport.on_write = answered.set
        wire.feed(http_request("POST", f"/{route}", body, headers))
        await asyncio.wait_for(answered.wait(), 10)
        assert live(dataplane) == ["a"]
        return wire.status

    assert on_demand(tmp_path, scenario) in (200, 202)


def test_the_least_recently_used_model_makes_room(tmp_path):
    for name in "abc":
        add(tmp_path, name)

    async def scenario(dataplane):
        seen = []
        for name in "abacba":
            await infer(dataplane, request(name))
            seen.append("".join(live(dataplane)))
        index = {each["name"]: each.get("reason", "") for each in dataplane.repository_index()}
        assert index == {"a": "", "b": "", "c": "unloaded"}
        assert "tuili_demand_evictions 3" in dataplane.metrics_text()
        return seen

    found = on_demand(tmp_path, scenario, budget=2 * MB + 100)
    assert found == ["a", "ab", "ab", "ac", "bc", "ab"]


def test_many_clients_of_more_models_than_fit_all_get_their_answers(tmp_path):
    names = [f"m{i}" for i in range(6)]
    for name in names:
        add(tmp_path, name)

    async def scenario(dataplane):
        most = 0

        async def client(first):
            nonlocal most
            for turn in range(30):
                name = names[(first * 7 + turn * (first + 1)) % len(names)]
                answer = await infer(dataplane, request(name))
                assert answer.model == name
                most = max(most, len(live(dataplane)))

        await asyncio.gather(*(client(i) for i in range(8)))
        return most, dataplane.demand.loads

    most, loads = on_demand(tmp_path, scenario, budget=3 * MB + 100)
    assert most == 3
    assert loads > len(names)


def test_requests_that_come_during_a_load_share_it(tmp_path):
    add(tmp_path, "a")

    async def scenario(dataplane):
        await asyncio.gather(*(infer(dataplane, request("a")) for _ in range(20)))
        return dataplane.demand.loads

    assert on_demand(tmp_path, scenario) == 1


SLOW = 'parameters { key: "execute_delay_ms" value { string_value: "150" } }'


def test_a_model_in_use_stays_until_it_has_answered(tmp_path):
    add(tmp_path, "slow", extra=SLOW)
    add(tmp_path, "b")

    async def scenario(dataplane):
        order = []

        async def ask(name):
            answer = await infer(dataplane, request(name))
            order.append(name)
            return answer

        first = asyncio.ensure_future(ask("slow"))
        await asyncio.sleep(0)
        await dataplane.demand.ensure("slow")
        second = asyncio.ensure_future(ask("b"))
        assert isinstance(await first, InferResponse)
        assert isinstance(await second, InferResponse)
        return order, live(dataplane)

    assert on_demand(tmp_path, scenario, budget=MB + 100) == (["slow", "b"], ["b"])


def test_a_request_that_waits_too_long_for_room_is_told_who_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(demand, "_PATIENCE_S", 0.01)
    add(tmp_path, "slow", extra=SLOW)
    add(tmp_path, "b")

    async def scenario(dataplane):
        first = asyncio.ensure_future(infer(dataplane, request("slow")))
        await asyncio.sleep(0)
        await dataplane.demand.ensure("slow")
        with pytest.raises(Unavailable, match="no room for model 'b', .* 1.0 MB .*: in use are sl"):
            await infer(dataplane, request("b"))
        assert isinstance(await first, InferResponse)

    on_demand(tmp_path, scenario, budget=MB + 100)


def test_a_client_that_goes_away_lets_its_model_go(tmp_path):
    add(tmp_path, "slow", extra=SLOW)
    add(tmp_path, "b")

    async def scenario(dataplane):
        tickets = [dataplane.submit(request("slow"), lambda answer: None) for _ in range(2)]
        tickets[0].cancel()  # before its model is there
        await dataplane.demand.ensure("slow")
        await asyncio.sleep(0)
        tickets[1].cancel()
        await infer(dataplane, request("b"))
        return live(dataplane)

    assert on_demand(tmp_path, scenario, budget=MB + 100) == ["b"]


@pytest.mark.parametrize("measured", [False, True], ids=["by its files", "once it is loaded"])
def test_a_model_above_the_budget_is_refused_and_costs_nobody_else(tmp_path, measured, monkeypatch):
    add(tmp_path, "a")
    add(tmp_path, "huge", size=0 if measured else 3 * MB)

    async def scenario(dataplane):
        await infer(dataplane, request("a"))
        if measured:
            process = SimpleNamespace(rss_bytes=lambda: 3 * MB)
            load = dataplane.repository.load

            async def grown(name, overrides=None):
                await load(name, overrides)
                dataplane.repository.live[name]["1"].hosts = [process]

            monkeypatch.setattr(dataplane.repository, "load", grown)
        with pytest.raises(Unavailable, match="'huge' needs 3.1 MB, which is above the 2.1 MB of"):
            await infer(dataplane, request("huge"))
        return live(dataplane), dataplane.model_ready("huge")

    assert on_demand(tmp_path, scenario, budget=2 * MB) == (["a"], False)


def test_a_model_that_does_not_load_is_told_and_not_tried_for_every_request(tmp_path):
    no_output = 'input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }'
    add(tmp_path, "bad", config=f'backend: "identity" {no_output}')

    async def scenario(dataplane):
        for _ in range(3):
            with pytest.raises((InvalidModel, NotPolled), match="load failed for model 'bad'"):
                await infer(dataplane, request("bad"))
        with pytest.raises(NotFound, match="unknown model: 'none' is not found"):
            await infer(dataplane, request("none"))
        assert dataplane.server_ready()
        assert not dataplane.model_ready("bad")
        assert dataplane.demand._footprints.estimate("none") == 0

    on_demand(tmp_path, scenario)


def test_an_ensemble_comes_with_its_parts_and_goes_with_them(tmp_path):
    add(tmp_path, "m", extra=SLOW)
    add(tmp_path, "other")
    (tmp_path / "e" / "1").mkdir(parents=True)
    (tmp_path / "e" / "config.pbtxt").write_text(ENSEMBLE)

    async def scenario(dataplane):
        order = []

        async def ask(name):
            await infer(dataplane, request(name))
            order.append(name)

        first = asyncio.ensure_future(ask("e"))
        await asyncio.sleep(0)
        await dataplane.demand.ensure("e")
        seen = [live(dataplane)]
        await asyncio.gather(first, ask("other"))  # which waits for the ensemble's answer
        return [*seen, order, live(dataplane)]

    found = on_demand(tmp_path, scenario, budget=MB + 100)
    assert found == [["e", "m"], ["e", "other"], ["other"]]


def test_questions_about_a_model_load_it_too(tmp_path):
    add(tmp_path, "a")

    async def scenario(dataplane):
        found = await dataplane.when_live("a", lambda: dataplane.model_metadata("a"))
        assert found["name"] == "a"
        await dataplane.repository_unload("a")
        await dataplane.repository_load("a")
        return live(dataplane)

    assert on_demand(tmp_path, scenario) == ["a"]


def test_models_in_processes_count_by_what_these_hold(tmp_path):
    for name in "ab":
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL.format(run='return {"y": x}', init="pass"))
        (tmp_path / name / "config.pbtxt").write_text(PYTHON.replace('"none"', '"process"'))

    async def scenario(dataplane):
        await infer(dataplane, request("a"))
        held = dataplane.demand._footprints.of("a")
        assert held > 5 * MB
        dataplane.demand._budget = int(held * 1.5)
        await infer(dataplane, request("b"))
        return live(dataplane)

    assert on_demand(tmp_path, scenario) == ["b"]


def test_native_models_count_by_their_files_and_what_their_runs_keep(tmp_path):
    rows = np.zeros((MB, 3), np.float32)
    for name in "ab":
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        twice(folder).path.rename(folder / "model.tuili")
        (tmp_path / name / "config.pbtxt").write_text(f"max_batch_size: {MB}")

    async def scenario(dataplane):
        def ask(name, x):
            return infer(dataplane, InferRequest(name, [InputTensor("x", "FP32", x.shape, x)]))

        await ask("a", rows)
        grown = dataplane.demand._footprints.of("a")
        assert grown >= rows.nbytes
        dataplane.demand._budget = grown
        await ask("b", rows[:1])
        return live(dataplane)

    assert on_demand(tmp_path, scenario) == ["b"]


def test_explicit_mode_stays_explicit(tmp_path):
    add(tmp_path, "a")

    async def scenario(dataplane):
        with pytest.raises(NotFound, match="unknown model: 'a' is not found"):
            await infer(dataplane, request("a"))

    run(tmp_path, scenario, model_control_mode="explicit")
