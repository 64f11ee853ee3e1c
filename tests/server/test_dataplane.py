"""DataPlane over a repository of identity models: no file, no network."""

import asyncio
import json

import numpy as np
import pytest

from tuili.backends.identity import Identity
from tuili.errors import InvalidArgument, NotFound, TuiliError, Unavailable, Unsupported
from tuili.server.dataplane import DataPlane
from tuili.server.options import ServerOptions
from tuili.server.protocol.messages import InferRequest, InputTensor

IDENTITY = """
backend: "identity"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""


def add(repository, model, *versions, config=IDENTITY):
    folder = repository / model
    for version in versions:
        (folder / str(version)).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)


def plane(repository, **options):
    return DataPlane(ServerOptions(repository=(repository,), **options))


def request(model="m", version="", shape=(1, 2)):
    data = np.ones(shape, np.float32)
    return InferRequest(model, [InputTensor("x", "FP32", shape, data)], version=version)


async def infer(dataplane, asked):
    answer = asyncio.get_running_loop().create_future()
    dataplane.submit(asked, answer.set_result)
    found = await asyncio.wait_for(answer, 60)
    if isinstance(found, TuiliError):
        raise found
    return found


def run(repository, scenario, **options):
    async def started():
        dataplane = plane(repository, **options)
        await dataplane.start()
        try:
            return await scenario(dataplane)
        finally:
            assert await dataplane.close(10)

    return asyncio.run(started())


def test_a_request_is_answered_by_the_newest_version(tmp_path):
    add(tmp_path, "m", 1, 2, config=IDENTITY + "version_policy { all {} }")

    async def scenario(dataplane):
        return [(await infer(dataplane, request(version=v))).version for v in ("", "1", "2")]

    assert run(tmp_path, scenario) == ["2", "1", "2"]


def test_metadata_and_config(tmp_path):
    add(tmp_path, "m", 1)

    async def scenario(dataplane):
        return dataplane.model_metadata("m"), dataplane.model_config("m", "1")

    metadata, config = run(tmp_path, scenario)
    assert metadata == {
        "name": "m",
        "versions": ["1"],
        "platform": "identity",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [2]
    assert json.dumps(config)


@pytest.mark.parametrize(
    ("model", "version", "kind", "text"),
    [
        ("x", "", NotFound, "^Request for unknown model: 'x' is not found$"),
        ("m", "9", NotFound, "^Request for unknown model: 'm' version 9 is not found$"),
        ("m", "abc", InvalidArgument, "specified version string 'abc'"),
        ("bad", "", NotFound, "^Request for unknown model: 'bad' has no available versions$"),
        ("bad", "1", Unavailable, "'bad' version 1 is not at ready state: UNAVAILABLE"),
    ],
)
def test_requests_for_what_is_not_there(tmp_path, model, version, kind, text):
    add(tmp_path, "m", 1)
    add(
        tmp_path,
        "bad",
        1,
        config='backend: "identity" input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }',
    )

    async def scenario(dataplane):
        for call in (dataplane.model_metadata, dataplane.model_config):
            with pytest.raises(kind, match=text):
                call(model, version)
        with pytest.raises(InvalidArgument, match="requested model|version string 'abc'"):
            dataplane.model_statistics(model, version)
        with pytest.raises(kind, match=text):
            await infer(dataplane, request(model, version))

    run(tmp_path, scenario)


def test_a_request_that_comes_while_models_load_may_be_tried_again(tmp_path):
    add(tmp_path, "m", 1)

    async def scenario():
        dataplane = plane(tmp_path)
        with pytest.raises(Unavailable, match="'m' is not ready: the server starts"):
            await infer(dataplane, request("m"))
        await dataplane.start()
        await infer(dataplane, request("m"))
        await dataplane.close()

    asyncio.run(scenario())


def test_readiness_tells_the_truth(tmp_path):
    add(tmp_path, "m", 1)

    async def scenario():
        dataplane = plane(tmp_path)
        seen = [dataplane.server_ready()]
        await dataplane.start()
        seen.append(dataplane.server_ready())
        assert dataplane.model_ready("m")
        assert dataplane.model_ready("m", "1")
        assert not dataplane.model_ready("m", "2")
        assert not dataplane.model_ready("x")
        dataplane.begin_drain()
        seen.append(dataplane.server_ready())
        assert (await infer(dataplane, request())).version == "1"
        await dataplane.close(10)
        return seen

    assert asyncio.run(scenario()) == [False, True, False]


def test_a_model_that_fails_makes_the_server_not_ready_unless_that_is_allowed(tmp_path):
    add(tmp_path, "bad", 1, config='backend: "identiti"')

    async def scenario(dataplane):
        return dataplane.server_ready(), dataplane.not_ready_reasons(), dataplane.repository_index()

    ready, reasons, index = run(tmp_path, scenario)
    assert not ready
    assert "none of model.tuili, model.tuiliz" in reasons["bad"]
    assert index[0]["state"] == "UNAVAILABLE"
    assert run(tmp_path, scenario, strict_readiness=False)[0]


def test_explicit_mode(tmp_path):
    add(tmp_path, "m", 1)
    add(tmp_path, "n", 1)

    async def scenario(dataplane):
        assert dataplane.repository_index() == [
            {"name": "m"},
            {"name": "n", "version": "1", "state": "READY"},
        ]
        await dataplane.repository_load("m")
        assert dataplane.model_ready("m")
        config = json.dumps({"backend": "identity", "max_batch_size": 3, "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [2]}], "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": [2]}]})  # fmt: skip
        await dataplane.repository_load("m", {"config": config})
        assert dataplane.model_config("m")["max_batch_size"] == 3
        await dataplane.repository_load("m", {"config": config, "file:7/none": b""})
        assert dataplane.model_metadata("m")["versions"] == ["7"]
        await dataplane.repository_unload("m")
        assert not dataplane.model_ready("m")
        await dataplane.repository_unload("unknown")
        with pytest.raises(InvalidArgument, match="path traversal characters, got '../m'"):
            await dataplane.repository_load("../m")

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("n",))


def test_load_and_unload_need_explicit_mode(tmp_path):
    async def scenario(dataplane):
        with pytest.raises(Unavailable, match="explicit model load / unload is not allowed"):
            await dataplane.repository_load("m")
        with pytest.raises(Unavailable, match="explicit model load / unload is not allowed"):
            await dataplane.repository_unload("m")

    run(tmp_path, scenario)


def test_requests_during_a_reload_are_all_answered(tmp_path):
    add(tmp_path, "m", 1)

    async def scenario(dataplane):
        reload = asyncio.ensure_future(dataplane.repository_load("m"))
        answered = 0
        while not reload.done():
            await infer(dataplane, request())
            answered += 1
        await reload
        assert answered
        stats = dataplane.model_statistics("m")["model_stats"]
        assert stats[0]["inference_stats"]["success"]["count"] == answered

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("*",))


def test_statistics_and_metrics(tmp_path):
    add(tmp_path, "m", 1)

    async def scenario(dataplane):
        await infer(dataplane, request(shape=(3, 2)))
        (stats,) = dataplane.model_statistics()["model_stats"]
        assert (stats["name"], stats["version"]) == ("m", "1")
        assert (stats["inference_count"], stats["execution_count"]) == (3, 1)
        assert stats["batch_stats"][0]["batch_size"] == 3
        text = dataplane.metrics_text()
        for line in (
            'nv_inference_request_success{model="m",version="1"} 1',
            'nv_inference_count{model="m",version="1"} 3',
            'nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 0',
            'tuili_request_duration_seconds_count{model="m",version="1"} 1',
            'tuili_batch_rows{model="m",version="1",rows="3"} 1',
            "tuili_server_ready 1",
        ):
            assert line in text.splitlines()

    run(tmp_path, scenario)


def test_the_metrics_parse(tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    add(tmp_path, "m", 1)

    async def scenario(dataplane):
        await infer(dataplane, request())
        return {
            family.name
            for family in parser.text_string_to_metric_families(dataplane.metrics_text())
        }

    assert {"nv_inference_count", "tuili_request_duration_seconds"} <= run(tmp_path, scenario)


def test_server_metadata_advertises_what_is_on(tmp_path):
    def extensions(**options):
        return plane(tmp_path, **options).server_metadata()["extensions"]

    async def scenario():
        assert "system_shared_memory" not in extensions()
        assert "system_shared_memory" in extensions(allow_client_shm=True)
        assert "system_shared_memory" in extensions(compat="triton")
        with pytest.raises(Unsupported, match="Client shared memory is disabled"):
            plane(tmp_path).shared_memory_register("system", "r", {"key": "k", "byte_size": 1})
        with pytest.raises(InvalidArgument, match="CUDA"):
            plane(tmp_path, allow_client_shm=True).shared_memory_register("cuda", "r", {})

    asyncio.run(scenario())


def test_settings_of_unknown_models(tmp_path):
    async def scenario(dataplane):
        with pytest.raises(InvalidArgument, match="Request for unknown model : x"):
            dataplane.trace_settings("x")
        with pytest.raises(InvalidArgument, match="Request for unknown model : x"):
            dataplane.update_trace_settings({}, "x")
        assert dataplane.trace_settings()["trace_level"] == ["OFF"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (IDENTITY.replace("TYPE_FP32 dims: [ 2 ] }\noutput", "TYPE_FP32 dims: [ 2 ] }\noutpt"),
         "line 5, column 1: ModelConfig has no field 'outpt'. Did you mean 'output'"),
        ('backend: "identity" input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }',
         "as many outputs as inputs in its configuration, found 1 inputs and 0 outputs"),
        (IDENTITY + 'model_warmup { inputs { key: "z" value {} } }', "has the unknown input 'z'"),
        (IDENTITY + 'model_warmup { inputs { key: "x" value { input_data_file: "f" } } }',
         "warm-up data .*warmup/f is missing"),
    ],
)  # fmt: skip
def test_reasons_of_models_that_do_not_load(tmp_path, config, text):
    add(tmp_path, "m", 1, config=config)

    async def scenario(dataplane):
        (entry,) = dataplane.repository_index()
        assert entry["state"] == "UNAVAILABLE"
        return entry["reason"]

    with pytest.raises(TuiliError, match=text):
        raise TuiliError(run(tmp_path, scenario))


def test_an_identity_model_may_have_no_tensors(tmp_path):
    add(tmp_path, "m", 1, config='backend: "identity"')

    async def scenario(dataplane):
        return dataplane.model_ready("m"), dataplane.model_metadata("m")["inputs"]

    assert run(tmp_path, scenario) == (True, [])


def test_a_load_that_ends_by_stop_iteration_ends(tmp_path, monkeypatch):
    """No future can hold it: the server would wait for its models for ever."""
    monkeypatch.setattr(Identity, "run", lambda self, inputs: next(iter(())))
    add(tmp_path, "m", 1, config=IDENTITY)

    async def scenario(dataplane):
        (entry,) = dataplane.repository_index()
        return entry["reason"]

    assert "StopIteration" in run(tmp_path, scenario)


def test_warm_up_runs_are_not_counted(tmp_path):
    warmup = 'model_warmup { batch_size: 2 count: 3 inputs { key: "x" value { zero_data: true } } }'
    add(tmp_path, "m", 1, config=IDENTITY + warmup)

    async def scenario(dataplane):
        return dataplane.model_statistics("m")["model_stats"][0]["execution_count"]

    assert run(tmp_path, scenario) == 0


CACHED = IDENTITY + "response_cache { enable: true }"


def test_the_same_request_is_answered_from_the_cache_until_a_reload(tmp_path):
    add(tmp_path, "m", 1, config=CACHED)

    async def scenario(dataplane):
        for _ in range(3):
            found = await infer(dataplane, request())
            assert found.outputs[0].data.tolist() == [[1, 1]]
        await infer(dataplane, request(shape=(2, 2)))
        (stats,) = dataplane.model_statistics("m")["model_stats"]
        counts = {key: stats["inference_stats"][key]["count"] for key in stats["inference_stats"]}
        assert (counts["success"], counts["cache_hit"], counts["cache_miss"]) == (4, 2, 2)
        assert stats["execution_count"] == 2
        await dataplane.repository_load("m")
        await infer(dataplane, request())
        assert dataplane.model_statistics("m")["model_stats"][0]["execution_count"] == 3

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("m",))


def test_the_cache_can_be_switched_off(tmp_path):
    add(tmp_path, "m", 1, config=CACHED)

    async def scenario(dataplane):
        for _ in range(2):
            await infer(dataplane, request())
        assert dataplane.model_statistics("m")["model_stats"][0]["execution_count"] == 2

    run(tmp_path, scenario, response_cache_bytes=0)


def test_a_configuration_that_came_with_a_load_holds_until_the_files_change(tmp_path):
    add(tmp_path, "m", 1, 2)

    async def scenario(dataplane):
        async def served(**parameters):
            await dataplane.repository_load("m", parameters)
            return dataplane.model_metadata("m")["versions"]

        given = {"backend": "identity", "version_policy": {"specific": {"versions": [1]}}}
        for role, name in (("input", "x"), ("output", "y")):
            given[role] = [{"name": name, "data_type": "TYPE_FP32", "dims": [2]}]
        assert await served(config=json.dumps(given)) == ["1"]
        assert await served() == ["1"]
        (tmp_path / "m" / "config.pbtxt").write_text(IDENTITY + "# changed")
        assert await served() == ["2"]

    run(tmp_path, scenario, model_control_mode="explicit")
