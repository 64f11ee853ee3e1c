"""The express way gives the answers of the long one, and leaves it in time."""

import asyncio
import shutil

import numpy as np
import pytest

from tests.server.grpc import wire as grpc_wire
from tests.server.http import wire as http_wire
from tests.server.test_dataplane import plane
from tuili.server.execution.express import Express
from tuili.server.serving.servable import Servable

TENSORS = {
    "one": [("x", "FP32", [4])],
    "two": [("a", "FP32", [2, 3]), ("b", "INT64", [1])],
    "open": [("x", "INT8", [-1])],
    "pair": [("a", "FP32", [2]), ("b", "FP32", [2])],
    "alone": [("x", "FP32", [4])],
    "queue": [("x", "FP32", [4])],
    "urgent": [("x", "FP32", [4])],
    "large": [("x", "FP32", [9000])],
    "ordered": [("x", "FP32", [4])],
    "numbers": [("x", "INT64", [1])],  # the model sees no dim but the batch
}
MORE = {
    "alone": "max_batch_size: 0",
    "ordered": "max_batch_size: 8 dynamic_batching { preserve_ordering: true }",
    "queue": "max_batch_size: 8 dynamic_batching { default_queue_policy { max_queue_size: 2 } }",
    "urgent": "max_batch_size: 8 dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
}
KINDS = {"FP32": np.float32, "INT64": np.int64, "INT8": np.int8}
FIELDS = {"FP32": "fp32_contents", "INT64": "int64_contents", "INT8": "int_contents"}


@pytest.fixture
def repository(tmp_path):
    for model, tensors in TENSORS.items():
        (tmp_path / model / "1").mkdir(parents=True)
        text = 'backend: "identity" ' + MORE.get(model, "max_batch_size: 8 dynamic_batching { }")
        for name, kind, dims in tensors:
            reshape = "reshape { }" if model == "numbers" else ""
            for role, called in (("input", name), ("output", name.upper())):
                text += (
                    f' {role} {{ name: "{called}" data_type: TYPE_{kind} dims: {dims} {reshape} }}'
                )
        (tmp_path / model / "config.pbtxt").write_text(text)
    return tmp_path


@pytest.fixture
def gone_the_express_way(monkeypatch):
    found = []
    way = Servable.express

    def noted(self, express: Express, *rest):
        found.append(express.request.model)
        return way(self, express, *rest)

    monkeypatch.setattr(Servable, "express", noted)
    return found


def inputs(model, rows, seed):
    rng = np.random.default_rng(seed)
    batched = [] if model == "alone" else [rows]
    return {
        name: rng.integers(-99, 99, [*batched, *(max(d, 5) if d < 0 else d for d in dims)]).astype(
            KINDS[kind]
        )
        for name, kind, dims in TENSORS[model]
    }


class Http:
    """A client over HTTP; its requests are answered in the next ticks of the loop."""

    def __init__(self, dataplane, beside):
        self.wire = http_wire.Wire(dataplane=dataplane, beside=beside)
        self.asked = 0

    @property
    def waits(self):
        return len(self.wire.answers()) < self.asked

    def entry(self, array):
        return {"parameters": {"binary_data_size": array.nbytes}}

    def document(self, model, arrays, outputs):
        entries = [
            {
                "name": name,
                "datatype": {kind: text for text, kind in KINDS.items()}[array.dtype.type],
                "shape": array.shape,
                **self.entry(array),
            }
            for name, array in arrays.items()
        ]
        document = {"inputs": entries, "parameters": {"binary_data_output": True}}
        return document | ({"outputs": [{"name": name} for name in outputs]} if outputs else {})

    def ask(self, model, arrays, outputs=()):
        data = b"".join(array.tobytes() for array in arrays.values())
        self.asked += 1
        self.wire.feed(http_wire.binary_infer(self.document(model, arrays, outputs), data, model))

    def answer(self):
        found = self.wire.answers()[-1]
        if found.status != 200:
            return found.error
        length = int(found.headers["inference-header-content-length"])
        outputs = http_wire.json.loads(found.body[:length])["outputs"]
        return _read(
            [(each["name"], each["datatype"], each["shape"]) for each in outputs],
            found.body[length:],
        )


class Named(Http):
    """Each of its requests has an id of its own, which comes back."""

    def document(self, model, arrays, outputs):
        ident = {"id": f"request {self.asked}"}
        return ident | super().document(model, arrays, outputs)

    def answer(self):
        found = self.wire.answers()[-1]
        if found.status == 200:
            length = int(found.headers["inference-header-content-length"])
            ident = http_wire.json.loads(found.body[:length])["id"]
            assert ident == f"request {self.asked}"
        return super().answer()


class Numbers(Http):
    """Numbers as JSON, there and back."""

    def entry(self, array):
        return {"data": array.tolist()}

    def document(self, model, arrays, outputs):
        document = super().document(model, arrays, outputs)
        del document["parameters"]
        return document

    def ask(self, model, arrays, outputs=()):
        self.asked += 1
        body = self.document(model, arrays, outputs)
        self.wire.feed(http_wire.request("POST", f"/v2/models/{model}/infer", body))

    def answer(self):
        found = self.wire.answers()[-1]
        if found.status != 200:
            return found.error
        return {
            each["name"]: np.array(each["data"], KINDS[each["datatype"]]).reshape(each["shape"])
            for each in found.json["outputs"]
        }


class NumbersThere(Named):
    """Numbers as JSON there, bytes back, and ids."""

    entry, ask = Numbers.entry, Numbers.ask


class Grpc:
    """The same over gRPC."""

    def __init__(self, dataplane, beside):
        self.wire = grpc_wire.Wire(dataplane=dataplane, beside=beside)

    @property
    def waits(self):
        self.wire.sync()
        return not self.wire.replies.get(self.number, grpc_wire.Reply()).ended

    def ask(self, model, arrays, outputs=()):
        self.number = self.wire.open()
        message = grpc_wire.INFERENCE["ModelInferRequest"](model_name=model, id=self.ident())
        for name, array in arrays.items():
            kind = {kind: text for text, kind in KINDS.items()}[array.dtype.type]
            self.add(message, array, name=name, datatype=kind, shape=array.shape)
        for name in outputs:
            message.outputs.add(name=name)
        self.wire.send(self.number, grpc_wire.framed(message))

    def add(self, message, array, **described):
        message.inputs.add(**described)
        message.raw_input_contents.append(array.tobytes())

    def ident(self):
        return ""

    def answer(self):
        reply = self.wire.replies[self.number]
        if reply.status:
            return reply.text
        response = reply.infer()
        assert response.id == self.ident()
        return _read(
            [(each.name, each.datatype, list(each.shape)) for each in response.outputs],
            b"".join(response.raw_output_contents),
        )


class GrpcNamed(Grpc):
    """Each of its requests has an id of its own, which comes back."""

    number = 0

    def ident(self):
        return f"request {self.number}"


class GrpcTyped(Grpc):
    """Its tensors are typed contents."""

    def add(self, message, array, **described):
        field = FIELDS[described["datatype"]]
        contents = {field: array.ravel().tolist()}
        message.inputs.add(**described, contents=contents)


class GrpcTypedNamed(GrpcTyped, GrpcNamed):
    """With ids too."""


HTTP = [Http, Named, Numbers, NumbersThere]
GRPC = [Grpc, GrpcNamed, GrpcTyped, GrpcTypedNamed]


def _read(described, data):
    found = {}
    for name, kind, shape in described:
        size = int(np.prod(shape)) * np.dtype(KINDS[kind]).itemsize
        found[name] = np.frombuffer(data[:size], KINDS[kind]).reshape(shape)
        data = data[size:]
    assert not data
    return found


async def answered(clients):
    async with asyncio.timeout(20):
        while any(client.waits for client in clients):  # noqa: ASYNC110 - a tick is no event
            await asyncio.sleep(0)


def with_clients(repository, protocol, count, scenario, **options):
    async def run():
        dataplane = plane(repository, **options)
        await dataplane.start()
        clients = [protocol(dataplane, None)]
        clients += [protocol(dataplane, clients[0].wire) for _ in range(count - 1)]
        await scenario(dataplane, clients)
        assert await dataplane.close(10)

    asyncio.run(run())


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
@pytest.mark.parametrize("model", ["one", "two", "open", "alone", "numbers", "large"])
def test_every_client_gets_its_own_numbers(repository, gone_the_express_way, protocol, model):
    async def scenario(dataplane, clients):
        for turn in range(4):
            asked = [inputs(model, 1 + at % 3, 10 * turn + at) for at in range(len(clients))]
            for client, arrays in zip(clients, asked, strict=True):
                client.ask(model, arrays)
            await answered(clients)
            for client, arrays in zip(clients, asked, strict=True):
                found = client.answer()
                assert list(found) == [name.upper() for name in arrays]
                for name, array in arrays.items():
                    np.testing.assert_array_equal(found[name.upper()], array)
        (statistics,) = dataplane.model_statistics(model)["model_stats"]
        assert statistics["inference_stats"]["success"]["count"] == 4 * len(clients)
        assert statistics["inference_stats"]["queue"]["ns"] > 0
        assert dataplane._live[model][""].statistics.request_ns.count == 4 * len(clients)

    with_clients(repository, protocol, 5, scenario)
    # The first request of each number of rows goes the long way.
    assert len(gone_the_express_way) == 4 * 5 - (1 if model == "alone" else 3)


@pytest.mark.parametrize("model", ["one", "pair", "alone", "numbers", "large"])
def test_a_host_answers_on_this_way_what_it_was_asked(repository, gone_the_express_way, model):
    for other in set(TENSORS) - {model}:
        shutil.rmtree(repository / other)
    with (repository / model / "config.pbtxt").open("a") as file:
        file.write(' parameters { key: "isolation" value { string_value: "process" } }')

    async def scenario(dataplane, clients):
        assert dataplane._live[model][""].hosts
        for turn in range(4):
            asked = [inputs(model, 1 + at % 3, 10 * turn + at) for at in range(len(clients))]
            for client, arrays in zip(clients, asked, strict=True):
                client.ask(model, arrays)
            await answered(clients)
            for client, arrays in zip(clients, asked, strict=True):
                for name, array in arrays.items():
                    np.testing.assert_array_equal(client.answer()[name.upper()], array)

    with_clients(repository, Http, 5, scenario)
    assert len(gone_the_express_way) == 4 * 5 - (1 if model == "alone" else 3)


def test_requests_that_name_their_inputs_in_another_order_may_be_joined(
    repository, gone_the_express_way
):
    async def scenario(_, clients):
        for turn in range(3):
            asked = [inputs("pair", 1, 10 * turn + at) for at in range(len(clients))]
            for at, (client, arrays) in enumerate(zip(clients, asked, strict=True)):
                client.ask("pair", dict(sorted(arrays.items(), reverse=at % 2 == 1)))
            await answered(clients)
            for client, arrays in zip(clients, asked, strict=True):
                found = client.answer()
                np.testing.assert_array_equal(found["A"], arrays["a"])
                np.testing.assert_array_equal(found["B"], arrays["b"])

    with_clients(repository, Http, 4, scenario)
    assert len(gone_the_express_way) == 3 * 4 - 2


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_wanted_outputs_come_in_their_order(repository, protocol):
    async def scenario(dataplane, clients):
        arrays = inputs("two", 2, 1)
        for _ in range(3):
            clients[0].ask("two", arrays, ["B", "A"])
            await answered(clients)
            found = clients[0].answer()
            assert list(found) == ["B", "A"]
            np.testing.assert_array_equal(found["B"], arrays["b"])

    with_clients(repository, protocol, 1, scenario)


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_models_with_the_same_words_are_told_apart(repository, gone_the_express_way, protocol):
    async def scenario(dataplane, clients):
        for turn in range(6):
            model = ("one", "queue")[turn % 2]
            arrays = inputs(model, 1, turn)
            clients[0].ask(model, arrays)
            await answered(clients)
            np.testing.assert_array_equal(clients[0].answer()["X"], arrays["x"])

    with_clients(repository, protocol, 1, scenario)
    assert gone_the_express_way == ["one", "queue"] * 2


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_a_full_queue_refuses_on_this_way_too(repository, gone_the_express_way, protocol):
    async def scenario(dataplane, clients):
        clients[0].ask("queue", inputs("queue", 1, 0))
        await answered(clients[:1])
        for client in clients:
            client.ask("queue", inputs("queue", 1, 1))
        await answered(clients)
        refused = [client.answer() for client in clients]
        assert [isinstance(each, str) for each in refused] == [False, False, True, True]
        assert "Exceeds maximum queue size" in refused[-1]

    with_clients(repository, protocol, 4, scenario)
    assert len(gone_the_express_way) == 4


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_words_mean_nothing_once_their_model_is_gone(repository, gone_the_express_way, protocol):
    async def scenario(dataplane, clients):
        for seed in range(2):
            clients[0].ask("one", inputs("one", 1, seed))
            await answered(clients)
        await dataplane.repository_unload("one")
        clients[0].ask("one", inputs("one", 1, 2))
        await answered(clients)
        assert "'one' has no available versions" in clients[0].answer()
        await dataplane.repository_load("one")
        arrays = inputs("one", 1, 3)
        clients[0].ask("one", arrays)
        await answered(clients)
        np.testing.assert_array_equal(clients[0].answer()["X"], arrays["x"])

    with_clients(
        repository, protocol, 1, scenario, model_control_mode="explicit", load_models=("*",)
    )
    assert gone_the_express_way == ["one"]


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_models_on_demand_are_used_the_long_way(repository, gone_the_express_way, protocol):
    async def scenario(dataplane, clients):
        for seed in range(3):
            arrays = inputs("one", 1, seed)
            clients[0].ask("one", arrays)
            await answered(clients)
            np.testing.assert_array_equal(clients[0].answer()["X"], arrays["x"])

    with_clients(repository, protocol, 1, scenario, model_control_mode="demand")
    assert gone_the_express_way == []


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_a_client_that_goes_takes_its_request_back(repository, protocol):
    async def scenario(dataplane, clients):
        clients[0].ask("one", inputs("one", 1, 0))
        await answered(clients[:1])
        for client in clients:
            client.ask("one", inputs("one", 1, 1))
        clients[0].wire.connection.connection_lost(None)
        await answered(clients[1:])
        assert isinstance(clients[1].answer(), dict)
        (statistics,) = dataplane.model_statistics("one")["model_stats"]
        assert statistics["inference_stats"]["success"]["count"] == 2
        assert statistics["inference_stats"]["fail"]["count"] == 1

    with_clients(repository, protocol, 2, scenario)


@pytest.mark.parametrize("protocol", [*HTTP, *GRPC])
def test_answers_in_order_go_the_long_way(repository, gone_the_express_way, protocol):
    async def scenario(dataplane, clients):
        for seed in range(2):
            clients[0].ask("ordered", inputs("ordered", 1, seed))
            await answered(clients)
            assert list(clients[0].answer()) == ["X"]

    with_clients(repository, protocol, 1, scenario)
    assert gone_the_express_way == []


def test_a_request_without_priority_has_the_default_one(repository):
    async def scenario(dataplane, clients):
        servable = dataplane._live["urgent"][""]
        for seed in range(2):
            clients[0].ask("urgent", inputs("urgent", 1, seed))
            assert servable._queue._sizes == {2: 1}
            await answered(clients)

    with_clients(repository, Http, 1, scenario)
