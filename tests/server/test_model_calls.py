"""Triton Python models: each request gets its own answer, and models call other models."""

import asyncio

import numpy as np
import pytest

from tests.server.test_dataplane import infer, plane
from tests.server.test_hosts import add, until
from tuili.errors import NotFound, TuiliError, Unavailable, UnknownFailure
from tuili.server.protocol.messages import InferRequest, InputTensor

CONFIG = """
backend: "python"
max_batch_size: 8
dynamic_batching { }
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""
ITERATIVE = "sequence_batching { iterative_sequence: true }"
HEAD = """
import asyncio, json
import numpy as np
import triton_python_backend_utils as pb

def one(request, value, name="y"):
    return pb.Tensor(name, np.array([[value]], np.float32))

def value_of(request):
    return float(pb.get_input_tensor_by_name(request, "x").as_numpy()[0, 0])
"""
EACH = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            if request.request_id() == "bad":
                error = pb.TritonError("not this one", pb.TritonError.UNKNOWN)
                answers.append(pb.InferenceResponse(error=error))
                continue
            told = json.loads(request.parameters()).get("add", 0)
            y = told + value_of(request)
            told = {"rows": len(requests), "id": request.request_id()}
            answers.append(pb.InferenceResponse([one(request, y)], parameters=told))
        return answers
"""
)
CALLS = (
    HEAD
    + """
class TritonPythonModel:
    async def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x")
            asks = [
                pb.InferenceRequest(model_name=name, inputs=[x], requested_output_names=["y"])
                for name in ("each", "each", "nobody")
            ]
            found = await asyncio.gather(*(ask.async_exec() for ask in asks[:2]))
            missing = asks[2].exec()
            if value_of(request) < 0:
                answers.append(pb.InferenceResponse(error=missing.error()))
                continue
            total = sum(pb.get_output_tensor_by_name(a, "y").as_numpy()[0, 0] for a in found)
            answers.append(pb.InferenceResponse([one(request, total)]))
        return answers
"""
)
COMPLETES = (
    HEAD
    + """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        return config

    def initialize(self, args):
        self.limit = json.loads(args["model_config"])["max_batch_size"]

    def execute(self, requests):
        return [pb.InferenceResponse([one(request, self.limit)]) for request in requests]
"""
)
SENDS = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(pb.InferenceResponse([one(request, 2 * value_of(request))]),
                        pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""
)
AGAIN = (
    HEAD
    + """
class TritonPythonModel:
    def initialize(self, args):
        self.rounds = 0

    def execute(self, requests):
        self.rounds += 1
        if self.rounds < 3:
            for request in requests:
                request.set_release_flags(pb.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return [None] * len(requests)
        return [pb.InferenceResponse([one(request, self.rounds)]) for request in requests]
"""
)


def ask(model, value=1.0, **more):
    data = np.array([[value]], np.float32)
    return InferRequest(model, [InputTensor("x", "FP32", (1, 1), data)], **more)


def run(repository, scenario, **options):
    async def started():
        dataplane = plane(repository, **options)
        await dataplane.start()
        assert dataplane.repository.failures() == {}
        try:
            return await scenario(dataplane)
        finally:
            await dataplane.close()

    return asyncio.run(started())


def counted(dataplane):
    return dataplane.model_statistics("m")["model_stats"][0]["inference_count"]


def value(response):
    return response.outputs[0].data.item()


def test_each_request_of_a_batch_has_its_own_answer(tmp_path):
    add(tmp_path, "each", config=CONFIG, source=EACH)

    async def scenario(dataplane):
        asks = [
            ask("each", 1.0, id="a"),
            ask("each", 2.0, id="bad"),
            ask("each", 3.0, id="c", parameters={"add": 10, "priority": 1}),
        ]
        return await asyncio.gather(
            *(infer(dataplane, each) for each in asks), return_exceptions=True
        )

    first, bad, last = run(tmp_path, scenario)
    assert (value(first), first.parameters["id"]) == (1.0, "a")
    assert isinstance(bad, UnknownFailure)
    assert str(bad) == "not this one"
    assert (value(last), last.parameters["rows"]) == (13.0, first.parameters["rows"])


@pytest.mark.parametrize(
    ("source", "config", "found"),
    [
        (COMPLETES, 'backend: "python"', 4.0),
        (SENDS, CONFIG, 14.0),
        (AGAIN, CONFIG.replace("dynamic_batching { }", ITERATIVE), 3.0),
    ],
    ids=["completes its configuration", "answers by its sender", "asks for another round"],
)
def test_ways_to_answer(tmp_path, source, config, found):
    add(tmp_path, "m", config=config, source=source)

    async def scenario(dataplane):
        return value(await infer(dataplane, ask("m", 7.0)))

    assert run(tmp_path, scenario) == found


def test_a_model_calls_others(tmp_path):
    add(tmp_path, "each", config=CONFIG, source=EACH)
    add(tmp_path, "calls", config=CONFIG, source=CALLS)

    async def scenario(dataplane):
        with pytest.raises(NotFound, match="Request for unknown model: 'nobody' is not found"):
            await infer(dataplane, ask("calls", -1.0))
        return value(await infer(dataplane, ask("calls", 21.0)))

    assert run(tmp_path, scenario) == 42.0


AGAIN_WITH_AN_ANSWER = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            request.set_release_flags(pb.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        return [pb.InferenceResponse([one(request, 1.0)]) for request in requests]
"""
)


def test_who_asks_for_another_round_has_no_answer_yet(tmp_path):
    config = CONFIG.replace("dynamic_batching { }", ITERATIVE)
    add(tmp_path, "m", config=config, source=AGAIN_WITH_AN_ANSWER)

    async def scenario(dataplane):
        with pytest.raises(TuiliError, match="Expected a None object in the execute function"):
            await infer(dataplane, ask("m"))

    run(tmp_path, scenario)


ARGUMENTS = (
    HEAD
    + """
import sys

class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([one(each, len(sys.argv))]) for each in requests]
"""
)


def test_a_model_finds_no_arguments_that_are_not_its_own(tmp_path):
    add(tmp_path, "m", config=CONFIG, source=ARGUMENTS)

    async def scenario(dataplane):
        assert value(await infer(dataplane, ask("m"))) == 1.0

    run(tmp_path, scenario)


COUNTS = (
    HEAD
    + """
class TritonPythonModel:
    def initialize(self, args):
        self.family = pb.MetricFamily("seen", "requests seen", pb.MetricFamily.COUNTER)
        self.seen = self.family.Metric(labels={"model": args["model_name"]})
        passing = pb.MetricFamily("passing", "gone at once", pb.MetricFamily.GAUGE)

    def execute(self, requests):
        self.seen.increment(len(requests))
        return [pb.InferenceResponse([one(each, self.seen.value())]) for each in requests]
"""
)


def test_a_model_has_metrics_of_its_own_as_long_as_it_lives(tmp_path):
    add(tmp_path, "m", config=CONFIG, source=COUNTS)

    async def scenario(dataplane):
        assert [value(await infer(dataplane, ask("m"))) for _ in range(2)] == [1.0, 2.0]
        text = dataplane.metrics_text()
        assert '# HELP seen requests seen\n# TYPE seen counter\nseen{model="m"} 2\n' in text
        assert "passing" not in text
        await dataplane.repository_unload("m")
        await until(lambda: "seen" not in dataplane.metrics_text())

    run(tmp_path, scenario, model_control_mode="explicit", load_models=("m",))


HALF = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        half = pb.Tensor("y", np.array([[1.5]], np.float16))
        return [pb.InferenceResponse([half]) for _ in requests]
"""
)


def test_an_answer_has_the_type_that_the_model_gives_it_whatever_was_declared(tmp_path):
    add(tmp_path, "m", config=CONFIG, source=HALF)

    async def scenario(dataplane):
        (output,) = (await infer(dataplane, ask("m"))).outputs
        assert (output.datatype, output.data.item()) == ("FP16", 1.5)

    run(tmp_path, scenario)


def test_a_model_that_raises_says_where(tmp_path):
    broken = (
        HEAD + "class TritonPythonModel:\n    def execute(self, requests):\n        return 1 / 0\n"
    )
    add(tmp_path, "m", config=CONFIG, source=broken)

    async def scenario(dataplane):
        with pytest.raises(
            TuiliError, match=r"model 'm_0_0', message: ZeroDivisionError(.|\n)*At:"
        ):
            await infer(dataplane, ask("m"))

    run(tmp_path, scenario)


ENDS = (
    HEAD
    + """
class TritonPythonModel:
    DEF execute(self, requests):
        if value_of(requests[0]) < 0:
            raise ERROR
        return [pb.InferenceResponse([one(request, 5.0)]) for request in requests]
"""
)


@pytest.mark.parametrize("define", ["def", "async def"])
@pytest.mark.parametrize(
    "error", ["SystemExit(3)", "KeyboardInterrupt()", "asyncio.CancelledError()"]
)
def test_a_model_may_raise_what_ends_other_programs(tmp_path, define, error):
    add(tmp_path, config=CONFIG, source=ENDS.replace("DEF", define).replace("ERROR", error))

    async def scenario(dataplane):
        async with asyncio.timeout(20):
            for _ in range(2):
                with pytest.raises(TuiliError, match="Failed to process the request"):
                    await infer(dataplane, ask("m", -1))
                assert value(await infer(dataplane, ask("m"))) == 5
        assert dataplane._live["m"][""].hosts[0].policy.deaths == 0

    run(tmp_path, scenario)


def test_an_output_for_which_there_is_no_datatype_is_told(tmp_path):
    source = EACH.replace("value]], np.float32", "value]], np.complex64")
    add(tmp_path, config=CONFIG, source=source)

    async def scenario(dataplane):
        with pytest.raises(TuiliError, match="'y' has NumPy dtype complex64, for which"):
            await infer(dataplane, ask("m"))

    run(tmp_path, scenario)


ITSELF = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        (request,) = requests
        left = value_of(request)
        if left == 0:
            return [pb.InferenceResponse([one(request, 0.0)])]
        asked = pb.InferenceRequest(
            model_name="m", inputs=[one(request, left - 1, "x")], requested_output_names=["y"]
        )
        below = pb.get_output_tensor_by_name(asked.exec(), "y").as_numpy()[0, 0]
        return [pb.InferenceResponse([one(request, below + 1)])]
"""
)


IN_ORDER = "dynamic_batching { preserve_ordering: true }"


@pytest.mark.parametrize("ordering", ["", IN_ORDER])
def test_a_model_that_calls_itself_needs_no_more_instances_than_it_is_deep(tmp_path, ordering):
    config = CONFIG.replace("dynamic_batching { }", ordering) + "instance_group { count: 3 }"
    add(tmp_path, config=config, source=ITSELF)

    async def scenario(dataplane):
        data = np.full((1, 1), 2, np.float32)
        asked = InferRequest("m", [InputTensor("x", "FP32", (1, 1), data)])
        async with asyncio.timeout(20):
            assert (await infer(dataplane, asked)).outputs[0].data.item() == 2.0

    run(tmp_path, scenario)


LATER = (
    HEAD
    + """
class TritonPythonModel:
    async def execute(self, requests):
        (request,) = requests
        sender = request.get_response_sender()

        async def answer():
            await asyncio.sleep(0)
            sender.send(pb.InferenceResponse([one(request, value_of(request))]), flags=1)

        self.task = asyncio.create_task(answer())
        return [None]
"""
)


def test_a_coroutine_may_answer_after_it_returned(tmp_path):
    add(tmp_path, config=CONFIG, source=LATER)

    async def scenario(dataplane):
        data = np.full((1, 1), 7, np.float32)
        asked = InferRequest("m", [InputTensor("x", "FP32", (1, 1), data)])
        assert (await infer(dataplane, asked)).outputs[0].data.item() == 7.0

    run(tmp_path, scenario)


MANY_CALLS = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        x = pb.get_input_tensor_by_name(requests[0], "x")
        called = {"model_name": "each", "inputs": [x], "requested_output_names": ["y"]}

        async def ask():
            calls = [pb.InferenceRequest(**called).async_exec() for _ in range(600)]
            tasks = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0)
            sum(range(40_000_000))  # keeps the interpreter to itself
            return await asyncio.gather(*tasks)

        answers = [each for each in asyncio.run(ask()) if not each.has_error()]
        return [pb.InferenceResponse([one(each, len(answers))]) for each in requests]
"""
)


ODD_CALL = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        x = pb.get_input_tensor_by_name(requests[0], "x")
        odd = {"priority": "high"}
        call = pb.InferenceRequest(
            model_name="each", inputs=[x], requested_output_names=["y"], parameters=odd
        )
        return [pb.InferenceResponse(error=call.exec().error()) for _ in requests]
"""
)


def test_a_model_that_does_not_listen_for_a_while_gets_all_answers_to_its_calls(tmp_path):
    add(tmp_path, "each", source=EACH, config=CONFIG)
    add(tmp_path, "m", source=MANY_CALLS, config=CONFIG)

    async def scenario(dataplane):
        async with asyncio.timeout(60):
            assert value(await infer(dataplane, ask("m"))) == 600

    run(tmp_path, scenario)


def test_a_call_that_cannot_be_taken_is_answered(tmp_path):
    add(tmp_path, "each", source=EACH, config=CONFIG)
    add(tmp_path, "m", source=ODD_CALL, config=CONFIG)

    async def scenario(dataplane):
        async with asyncio.timeout(20):
            with pytest.raises(TuiliError, match="high"):
                await infer(dataplane, ask("m"))

    run(tmp_path, scenario)


RING = (
    HEAD
    + """
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            left = value_of(request)
            if left == 0:
                answers.append(pb.InferenceResponse([one(request, 0.0)]))
                continue
            asked = pb.InferenceRequest(
                model_name=NEXT, inputs=[one(request, left - 1, "x")], requested_output_names=["y"]
            )
            told = CALL
            if told.has_error():
                answers.append(pb.InferenceResponse(error=told.error()))
                continue
            below = pb.get_output_tensor_by_name(told, "y").as_numpy()[0, 0]
            answers.append(pb.InferenceResponse([one(request, below + 1)]))
        return answers
"""
)
ASYNC = RING.replace("def execute", "async def execute").replace("CALL", "await asked.async_exec()")


@pytest.mark.parametrize("source", [RING.replace("CALL", "asked.exec()"), ASYNC])
@pytest.mark.parametrize("names", [("m",), ("m", "n"), ("m", "n", "o")])
@pytest.mark.parametrize("count", [1, 2])
def test_a_ring_of_calls_is_broken_where_nothing_else_would_end_it(tmp_path, source, names, count):
    config = CONFIG.replace("dynamic_batching { }", f"instance_group {{ count: {count} }}")
    for at, name in enumerate(names):
        follower = repr(names[(at + 1) % len(names)])
        add(tmp_path, name, config=config, source=source.replace("NEXT", follower))
    most = len(names) * count - 1

    async def scenario(dataplane):
        async with asyncio.timeout(60):
            assert value(await infer(dataplane, ask("m", most))) == most
            with pytest.raises(Unavailable, match="all of its instances wait for answers"):
                await infer(dataplane, ask("m", most + 1))
            many = [infer(dataplane, ask("m", 1 + most % 2)) for _ in range(20)]
            await asyncio.gather(*many, return_exceptions=True)
            assert value(await infer(dataplane, ask("m", most))) == most

    run(tmp_path, scenario)


@pytest.mark.parametrize(("amount", "deep"), [(1, 0), (2, 1)])
def test_a_call_that_lacks_what_its_callers_hold_is_refused(tmp_path, amount, deep):
    claim = 'rate_limiter { resources { name: "R" count: 1 } }'
    config = CONFIG.replace("dynamic_batching { }", f"instance_group {{ count: 1 {claim} }}")
    for name, follower in (("m", "'n'"), ("n", "'o'"), ("o", "''")):
        source = RING.replace("CALL", "asked.exec()").replace("NEXT", follower)
        add(tmp_path, name, config=config, source=source)

    async def scenario(dataplane):
        async with asyncio.timeout(60):
            assert value(await infer(dataplane, ask("m", deep))) == deep
            with pytest.raises(Unavailable, match="resources that it needs"):
                await infer(dataplane, ask("m", deep + 1))
            many = [infer(dataplane, ask("m", deep + at % 2)) for at in range(20)]
            await asyncio.gather(*many, return_exceptions=True)
            assert value(await infer(dataplane, ask("o", 0))) == 0

    limits = {"rate_limit": "execution_count", "rate_limit_resources": (("R", amount),)}
    run(tmp_path, scenario, **limits)


UNAWAITED = (
    HEAD
    + """
class TritonPythonModel:
    async def execute(self, requests):
        (request,) = requests
        if value_of(request):
            self.call = pb.InferenceRequest(
                model_name="m", inputs=[one(request, 0, "x")], requested_output_names=["y"]
            ).async_exec()
        return [pb.InferenceResponse([one(request, 7.0)])]
"""
)


def test_a_call_that_nobody_waits_for_closes_no_ring(tmp_path):
    config = CONFIG.replace("dynamic_batching { }", "")
    add(tmp_path, config=config, source=UNAWAITED)

    async def scenario(dataplane):
        assert value(await infer(dataplane, ask("m", 1))) == 7.0
        await until(
            lambda: dataplane.model_statistics("m")["model_stats"][0]["inference_count"] > 1
        )

    run(tmp_path, scenario)


def test_a_ring_that_goes_by_an_ensemble_is_broken_too(tmp_path):
    config = CONFIG.replace("dynamic_batching { }", "")
    source = RING.replace("CALL", "asked.exec()").replace("NEXT", "'e'")
    add(tmp_path, "m", config=config, source=source)
    step = 'model_name: "m" input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }'
    ensemble = config.replace('backend: "python"', 'platform: "ensemble"')
    add(tmp_path, "e", config=f"{ensemble} ensemble_scheduling {{ step [ {{ {step} }} ] }}")

    async def scenario(dataplane):
        async with asyncio.timeout(60):
            assert value(await infer(dataplane, ask("e", 0))) == 0
            with pytest.raises(TuiliError, match="all of its instances wait for answers"):
                await infer(dataplane, ask("e", 1))

    run(tmp_path, scenario)
