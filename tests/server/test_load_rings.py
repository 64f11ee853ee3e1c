"""Models whose loads wait for each other: found at once, named, and nothing is left of it."""

import asyncio

import pytest

from tests.server.test_dataplane import infer, plane
from tests.server.test_hosts import add
from tests.server.test_model_calls import CONFIG, HEAD, ask, value
from tuili.errors import InvalidModel, TuiliError
from tuili.server.protocol.recorded import dump
from tuili.server.repository import recordings

ONE = CONFIG.replace("dynamic_batching { }", "")
LOADS = (
    HEAD
    + """
class TritonPythonModel:
    def initialize(self, args):
        DOES

    def execute(self, requests):
        return [pb.InferenceResponse([one(request, value_of(request))]) for request in requests]
"""
)
# One of its instances loads a model when it is asked for something positive.
LOADS_LATER = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        if value_of(requests[0]) > 0:
            pb.load_model("NEXT")
        return [pb.InferenceResponse([one(request, value_of(request))]) for request in requests]
"""
)
PLAIN = LOADS.replace("DOES", "pass")
STEP = """step [ {{ model_name: "{}"
    input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }} }} ]"""


def loads(name):
    return LOADS.replace("DOES", f'pb.load_model("{name}")')


def ensemble(repository, name, step):
    config = ONE.replace('backend: "python"', 'platform: "ensemble"')
    add(repository, name, config=f"{config} ensemble_scheduling {{ {STEP.format(step)} }}")


def run(repository, scenario, mode="explicit", *, turns=2):
    async def started():
        dataplane = plane(repository, model_control_mode=mode)
        dataplane.launcher.turns._free = asyncio.Semaphore(turns)
        await dataplane.start()
        try:
            async with asyncio.timeout(60):
                await scenario(dataplane)
        finally:
            await dataplane.close()
        assert not list(dataplane.loads)
        assert not dataplane.launcher.answerer._calls
        assert not dataplane.launcher.answerer.open_calls._all

    asyncio.run(started())


@pytest.mark.parametrize("names", [("m",), ("m", "n"), ("m", "n", "o")])
def test_models_that_load_each_other_are_refused_with_the_ring(tmp_path, names):
    for name, follower in zip(names, (*names[1:], names[0]), strict=True):
        add(tmp_path, name, config=ONE, source=loads(follower))
    add(tmp_path, "other", config=ONE, source=PLAIN)

    async def scenario(dataplane):
        for _ in range(2):
            with pytest.raises(
                InvalidModel, match="model 'm' is not loaded: its load waits"
            ) as raised:
                await dataplane.repository_load("m")
            found = str(raised.value)
            assert all(f"load of '{name}' -> {name}-1" in found for name in names)
        await dataplane.repository_load("other")
        assert not any(dataplane.model_ready(name) for name in names)

    run(tmp_path, scenario)


def test_a_model_that_unloads_itself_while_it_loads_is_refused(tmp_path):
    add(tmp_path, "m", config=ONE, source=LOADS.replace("DOES", 'pb.unload_model("m")'))

    async def scenario(dataplane):
        with pytest.raises(InvalidModel, match="model 'm' is not unloaded: its load waits"):
            await dataplane.repository_load("m")

    run(tmp_path, scenario)


def test_a_part_that_loads_its_ensemble_is_refused_and_may_do_without(tmp_path):
    tries = 'try: pb.load_model("e")\n        except Exception as error: print(error)'
    add(tmp_path, "m", config=ONE, source=LOADS.replace("DOES", tries))
    ensemble(tmp_path, "e", "m")

    async def scenario(dataplane):
        await dataplane.repository_load("m")
        assert not dataplane.model_ready("e")
        assert "depends on 'm', which is not loaded: model 'm' is not" in str(
            dataplane.repository.failures()
        )
        await dataplane.repository_load("e")
        assert value(await infer(dataplane, ask("e", 5))) == 5

    run(tmp_path, scenario)


ASKS = LOADS.replace(
    "DOES",
    """
        x = pb.Tensor("x", np.zeros((1, 1), np.float32))
        ask = pb.InferenceRequest(model_name="NEXT", inputs=[x], requested_output_names=["y"])
        answer = ask.exec()
        if answer.has_error():
            raise pb.TritonModelException(answer.error().message())
""",
)


def test_models_that_ask_each_other_before_they_are_loaded_are_refused(tmp_path):
    add(tmp_path, "m", config=ONE, source=ASKS.replace("NEXT", "n"))
    add(tmp_path, "n", config=ONE, source=ASKS.replace("NEXT", "m"))

    async def scenario(dataplane):
        with pytest.raises(TuiliError, match="model 'm' is not asked: its load waits"):
            await infer(dataplane, ask("m", 1))

    run(tmp_path, scenario, "demand")


def test_a_rehearsal_that_needs_who_waits_for_the_load_is_left_out(tmp_path, caplog):
    add(tmp_path, "m", config=ONE, source=LOADS_LATER.replace("NEXT", "e"))
    ensemble(tmp_path, "e", "m")
    recordings.write(tmp_path / "e", dump(ask("e", 0)))

    async def scenario(dataplane):
        await dataplane.repository_load("m")
        assert value(await infer(dataplane, ask("m", 1))) == 1
        assert dataplane.model_ready("e")
        (told,) = [each for each in caplog.messages if "does not warm up" in each]
        assert (
            "(m-1 -> load of 'e' -> m-1)" in told or "(load of 'e' -> m-1 -> load of 'e')" in told
        )

    run(tmp_path, scenario)


def test_a_warm_up_that_asks_who_waits_for_the_load_is_told(tmp_path):
    """`n` asks `m` for what was recorded, whose only instance waits until `n` is loaded."""
    add(tmp_path, "m", config=ONE, source=LOADS_LATER.replace("NEXT", "n"))
    source = ASKS.replace("def initialize(self, args)", "def before(self)").replace("NEXT", "m")
    source = source.replace("        return [pb", "        self.before()\n        return [pb")
    add(tmp_path, "n", config=ONE, source=source)
    recordings.write(tmp_path / "n", dump(ask("n", 0)))

    async def scenario(dataplane):
        await dataplane.repository_load("m")
        assert value(await infer(dataplane, ask("m", 1))) == 1
        assert value(await infer(dataplane, ask("n", 3))) == 3

    run(tmp_path, scenario)


def test_a_chain_of_loads_waits_for_no_turn_of_its_own(tmp_path):
    for name, does in (("m", loads("n")), ("n", loads("o")), ("o", PLAIN)):
        add(tmp_path, name, config=ONE, source=does)

    async def scenario(dataplane):
        await asyncio.wait_for(dataplane.repository_load("m"), 25)  # a turn is 30 s
        assert all(dataplane.model_ready(name) for name in "mno")
        assert dataplane.launcher.turns._free._value == 1

    run(tmp_path, scenario, turns=1)
