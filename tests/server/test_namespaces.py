"""Several repositories with models of one name: refused, or told apart by namespaces."""

import asyncio
import shutil

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from tests.server.control.test_rollouts import ENSEMBLE, MODEL, ONE, PYTHON, Origin, settle
from tests.server.test_dataplane import infer
from tuili.cli.serve_places import places
from tuili.errors import InvalidArgument, NotFound
from tuili.server import main
from tuili.server.naming import NamingDataPlane, dataplane_of
from tuili.server.options import ServerOptions
from tuili.server.protocol.messages import InferRequest, InputTensor
from tuili.server.repository.namespaces import named

# What the model `m` of each repository does with x = 1; the ensembles do it twice.
DOES = {"a": "return {'y': x + 1}", "b": "return {'y': x * 10}"}
PIPELINE = """
inputs: {x: "FP32[-1,2]"}
outputs: {y: one.y}
steps:
  one: {model: m, inputs: {x: x}}
"""


def add_model(folder, run, versions=(1,)):
    for number in versions:
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "model.py").write_text(MODEL.format(init="pass", run=run))
    (folder / "config.pbtxt").write_text(PYTHON + (ONE if len(versions) > 1 else ""))


def add_ensemble(folder, text=ENSEMBLE):
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text)


@pytest.fixture
def two(tmp_path):
    """Repositories a and b: model m and ensemble e in both, pipeline p and model n in one."""
    for name, run in DOES.items():
        add_model(tmp_path / name / "m", run)
        add_ensemble(tmp_path / name / "e")
    add_model(tmp_path / "a" / "n", "return {'y': x + 100}")
    (tmp_path / "b" / "p" / "1").mkdir(parents=True)
    (tmp_path / "b" / "p" / "1" / "pipeline.yaml").write_text(PIPELINE)
    return {"a": tmp_path / "a", "b": tmp_path / "b"}


def run(repositories, scenario, spaces=True, **options):
    async def started():
        given = named(repositories) if spaces else tuple(repositories.values())
        dataplane = dataplane_of(ServerOptions(repository=given, **options))
        await dataplane.start()
        dataplane._conducting.cancel()  # the test ticks itself
        try:
            return await scenario(dataplane)
        finally:
            assert await dataplane.close(10)

    return asyncio.run(started())


def ask(dataplane, model, **headers):
    data = np.ones((1, 2), np.float32)
    return infer(
        dataplane,
        InferRequest(model, [InputTensor("x", "FP32", (1, 2), data)], origin=Origin(**headers)),
    )


async def value(dataplane, model):
    answer = await ask(dataplane, model)
    assert answer.model == model
    return float(answer.outputs[0].data[0, 0])


def test_without_namespaces_models_of_one_name_are_refused_and_others_serve(two):
    async def scenario(dataplane):
        found = dataplane.not_ready_reasons()
        with pytest.raises(NotFound, match="unknown model: 'm'"):
            await ask(dataplane, "m")
        return found, await value(dataplane, "n")

    reasons, answer = run(two, scenario, spaces=False)
    assert answer == 101
    for folder in two.values():
        assert str(folder) in reasons["m"]
    assert "--model-namespacing" in reasons["m"]


def test_a_second_model_of_the_same_name_is_told_and_the_first_serves_on(two, tmp_path):
    shutil.move(two["b"] / "m", tmp_path / "away")

    async def scenario(dataplane):
        before = dataplane.not_ready_reasons(), await value(dataplane, "m")
        shutil.move(tmp_path / "away", two["b"] / "m")
        await dataplane.poll()
        during = sorted(dataplane.not_ready_reasons()), await value(dataplane, "m")
        shutil.rmtree(two["a"] / "m")
        await dataplane.poll()
        return before, during, (dataplane.not_ready_reasons(), await value(dataplane, "m"))

    shutil.rmtree(two["b"] / "e")
    found = run(two, scenario, spaces=False, model_control_mode="poll", settle_s=0)
    assert found == (({}, 2), (["m"], 2), ({}, 10))


def test_each_name_finds_its_model_and_each_step_that_of_its_own_namespace(two):
    async def scenario(dataplane):
        names = [each["name"] for each in dataplane.repository_index(ready_only=True)]
        assert names == ["a/e", "a/m", "a/n", "b/e", "b/m", "b/p"]
        return {name: await value(dataplane, name) for name in (*names, "n", "p")}

    found = run(two, scenario)
    assert found == {
        "a/m": 2, "b/m": 10, "a/e": 3, "b/e": 100, "a/n": 101, "n": 101, "b/p": 10, "p": 10,
    }  # fmt: skip


AMBIGUOUS = {
    "infer": lambda plane: ask(plane, "m"),
    "metadata": lambda plane: plane.model_metadata("m"),
    "config": lambda plane: plane.model_config("e"),
    "ready": lambda plane: plane.model_ready("m"),
    "statistics": lambda plane: plane.model_statistics("m"),
    "labels": lambda plane: plane.rollouts.labels("m"),
}


@pytest.mark.parametrize("question", AMBIGUOUS)
def test_a_name_of_several_models_is_refused_with_all_of_them(question, two):
    async def scenario(dataplane):
        async def asked():
            found = AMBIGUOUS[question](dataplane)
            return await found if asyncio.iscoroutine(found) else found

        with pytest.raises(InvalidArgument, match="resolve ambiguity: a/., b/."):
            await asked()

    run(two, scenario)


def test_unknown_names_are_unknown(two):
    async def scenario(dataplane):
        for name in ("x", "a/x", "c/m", "a/", "/m"):
            with pytest.raises(NotFound, match="unknown model"):
                await ask(dataplane, name)
            with pytest.raises(Exception, match=r"load|name"):
                await dataplane.repository_load(name)

    run(two, scenario, model_control_mode="explicit", load_models=("*",))


def test_a_step_goes_to_the_only_other_namespace_while_its_own_has_none(two, tmp_path):
    """Triton's L0_model_namespacing, test_dynamic_resolution."""
    home, away = two["a"] / "m", tmp_path / "away"

    async def scenario(dataplane):
        shutil.move(home, away)
        await dataplane.poll()
        found = [await value(dataplane, name) for name in ("a/e", "b/e", "m")]
        shutil.move(away, home)
        await dataplane.poll()
        found += [await value(dataplane, name) for name in ("a/e", "b/e", "a/m")]
        with pytest.raises(InvalidArgument, match="ambiguity"):
            await ask(dataplane, "m")
        return found

    found = run(two, scenario, model_control_mode="poll", settle_s=0)
    assert found == [100, 100, 10, 3, 100, 2]


def test_a_plain_name_loads_and_unloads_all_that_are_called_so(two):
    async def scenario(dataplane):
        await dataplane.repository_load("e")
        found = [await value(dataplane, name) for name in ("a/e", "b/e")]
        await dataplane.repository_unload("a/e")
        found.append(await value(dataplane, "e"))
        await dataplane.repository_unload("e")
        return found, dataplane.model_ready("b/e")

    assert run(two, scenario, model_control_mode="explicit") == ([3, 100, 100], False)


def test_models_come_on_demand_by_either_name(two):
    async def scenario(dataplane):
        found = [await value(dataplane, name) for name in ("b/e", "n")]
        return found, sorted(dataplane.repository.live)

    assert run(two, scenario, model_control_mode="demand") == ([100, 101], ["a/n", "b/e", "b/m"])


def test_a_roll_out_is_of_one_namespace(two):
    shutil.rmtree(two["b"] / "m")
    add_model(two["b"] / "m", DOES["b"], versions=(1, 2))
    add_model(two["b"] / "only", DOES["b"], versions=(1, 2))
    plan = {"candidate": 2, "steps": [{"weight": 100, "min_time_s": 0, "min_samples": 5}]}

    async def scenario(dataplane):
        assert isinstance(dataplane, NamingDataPlane)
        with pytest.raises(InvalidArgument, match="ambiguity"):
            await dataplane.rollouts.create(plan | {"model": "m"}, "me")
        for model, name in (("b/m", "r"), ("only", "s")):
            await dataplane.rollouts.create(plan | {"model": model, "name": name}, "me")
        await settle(dataplane)
        found = [(await ask(dataplane, name)).version for name in ("a/m", "b/m", "only")]
        await dataplane.rollouts.act("s", "promote", "me")
        await settle(dataplane)
        labels = dataplane.rollouts.labels("only")
        entries = (await dataplane.rollouts.history("only"))["entries"]
        return found, labels, {each["model"] for each in entries}

    found, labels, models = run(two, scenario)
    assert found == ["1", "2", "2"]
    assert labels == {"model": "b/only", "labels": {"stable": 2}}
    assert models == {"b/only"}


def clients(http_port, grpc_port):
    found = {}
    for module, port in ((over_http, http_port), (over_grpc, grpc_port)):
        client = module.InferenceServerClient(f"127.0.0.1:{port}")
        given = module.InferInput("x", [1, 2], "FP32")
        given.set_data_from_numpy(np.ones((1, 2), np.float32))
        for name in ("a/m", "b/e", "n"):
            answer = client.infer(name, [given])
            found.setdefault(name, []).append(float(answer.as_numpy("y")[0, 0]))
            assert client.is_model_ready(name)
            assert client.get_model_metadata(name)
            assert client.get_model_config(name)
        with pytest.raises(Exception, match="ambiguity"):
            client.infer("m", [given])
        client.unload_model("a/m")
        assert not client.is_model_ready("a/m", "1")
        client.load_model("a/m")
        client.close()
    return found


def test_tritons_clients_send_both_kinds_of_names(two):
    options = ServerOptions(
        repository=named(two), http_port=0, grpc_port=0, metrics_port=-1,
        model_control_mode="explicit", load_models=("*",),
    )  # fmt: skip

    async def scenario():
        running = await main.start(options)
        ports = running.ports()
        try:
            return await asyncio.to_thread(clients, ports["http"], ports["grpc"])
        finally:
            await main.shut_down(running, 5.0)

    assert asyncio.run(scenario()) == {"a/m": [2, 2], "b/e": [100, 100], "n": [101, 101]}


def test_the_command_line_names_repositories(tmp_path):
    for name in ("one", "two", "x=y", "deep/one"):
        (tmp_path / name).mkdir(parents=True)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert places([one, two], tmp_path, namespacing=False)[0] == (
        tmp_path / "one",
        tmp_path / "two",
    )
    found, _ = places([one, two], tmp_path, namespacing=True)
    assert dict(found.by_name) == {"one": tmp_path / "one", "two": tmp_path / "two"}
    found, urls = places([f"a={one}", "b=s3://bucket/models", two], tmp_path, namespacing=False)
    assert (list(found.by_name), urls) == (["a", "b", "two"], ("s3://bucket/models",))
    with pytest.raises(InvalidArgument, match="two repositories would have namespace 'one'.*NAME="):
        places([one, str(tmp_path / "deep" / "one")], tmp_path, namespacing=True)
    with pytest.raises(InvalidArgument, match="invalid namespace 'x=y'"):
        places([str(tmp_path / "x=y")], tmp_path, namespacing=True)
