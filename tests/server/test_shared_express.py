"""Requests whose tensors lie in shared memory go the express way, and mean what they say."""

import asyncio
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from tests.server import test_express
from tests.server.grpc import wire as grpc_wire
from tests.server.http import wire as http_wire
from tests.server.test_dataplane import plane
from tests.server.test_express import answered
from tuili.server.serving.servable import Servable

MODELS = {
    "joined": "max_batch_size: 8 dynamic_batching { }",
    "alone": "max_batch_size: 8",
    "hosted": 'max_batch_size: 8 parameters { key: "isolation" value { string_value: "process" } }',
}
SIZE = 16  # four numbers
ROOM = 2 * SIZE


@pytest.fixture
def repository(tmp_path):
    for model, text in MODELS.items():
        (tmp_path / model / "1").mkdir(parents=True)
        ports = "".join(
            f' {role} {{ name: "{name}" data_type: TYPE_FP32 dims: [ 4 ] }}'
            for role, name in (("input", "x"), ("output", "X"))
        )
        (tmp_path / model / "config.pbtxt").write_text(f'backend: "identity" {text} {ports}')
    return tmp_path


@pytest.fixture
def gone_the_express_way(monkeypatch):
    found = []
    way = Servable.express

    def noted(self, express, *rest):
        found.append(express.standing is not None)
        return way(self, express, *rest)

    monkeypatch.setattr(Servable, "express", noted)
    return found


COUNT = itertools.count()  # What an earlier test mapped has another name.


class Memory:
    """A client's shared memory: an input and behind it room for an output."""

    def __init__(self, at):
        self.name = f"tuili-express-{os.getpid()}-{next(COUNT)}-{at}"
        self.path = Path("/dev/shm") / self.name
        self.path.write_bytes(bytes(ROOM))

    def fill(self, numbers):
        data = np.array(numbers, np.float32).tobytes() + bytes([0xA5]) * SIZE
        with self.path.open("r+b") as file:
            file.write(data)

    def answer(self):
        return np.frombuffer(self.path.read_bytes(), np.float32)[4:].tolist()

    def mapped(self):
        return Path("/proc/self/maps").read_text().count(self.name)


@pytest.fixture
def memories():
    found = [Memory(at) for at in range(4)]
    yield found
    for memory in found:
        memory.path.unlink(missing_ok=True)


def places(region, size=SIZE):
    where = {"shared_memory_region": region, "shared_memory_byte_size": SIZE}
    return where, where | {"shared_memory_offset": SIZE, "shared_memory_byte_size": size}


class Http:
    """A client over HTTP."""

    def __init__(self, dataplane, beside):
        self.wire = http_wire.Wire(dataplane=dataplane, beside=beside)
        self.asked = 0

    @property
    def waits(self):
        return len(self.wire.answers()) < self.asked

    def ask(self, model, region, size=SIZE):
        source, target = places(region, size)
        document = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": source}],
            "outputs": [{"name": "X", "parameters": target}],
        }
        self.asked += 1
        self.wire.feed(http_wire.request("POST", f"/v2/models/{model}/infer", document))

    def error(self):
        found = self.wire.answers()[-1]
        if found.status != 200:
            return found.error
        document = http_wire.json.loads(found.body)
        assert document["outputs"] == [{"name": "X", "datatype": "FP32", "shape": [1, 4]}]
        return ""


class Grpc:
    """The same over gRPC."""

    def __init__(self, dataplane, beside):
        self.wire = grpc_wire.Wire(dataplane=dataplane, beside=beside)

    @property
    def waits(self):
        self.wire.sync()
        return not self.wire.replies.get(self.number, grpc_wire.Reply()).ended

    def ask(self, model, region, size=SIZE):
        message = grpc_wire.INFERENCE["ModelInferRequest"](model_name=model)
        source, target = places(region, size)
        put(message.inputs.add(name="x", datatype="FP32", shape=[1, 4]), source)
        put(message.outputs.add(name="X"), target)
        self.number = self.wire.open()
        self.wire.send(self.number, grpc_wire.framed(message))

    def error(self):
        reply = self.wire.replies[self.number]
        if reply.status:
            return reply.text
        (output,) = reply.infer().outputs
        assert (output.name, list(output.shape)) == ("X", [1, 4])
        assert list(reply.infer().raw_output_contents) == [b""]
        return ""


def put(tensor, where):
    for key, value in where.items():
        kind = "string_param" if isinstance(value, str) else "int64_param"
        setattr(tensor.parameters[key], kind, value)


def register(dataplane, region, memory):
    told = {"key": memory.name, "byte_size": ROOM}
    dataplane.shared_memory_register("system", region, told)


def with_clients(repository, protocol, count, scenario):
    async def run():
        dataplane = plane(repository, allow_client_shm=True)
        await dataplane.start()
        clients = [protocol(dataplane, None)]
        clients += [protocol(dataplane, clients[0].wire) for _ in range(count - 1)]
        await scenario(dataplane, clients)
        assert await dataplane.close(10)

    asyncio.run(run())


async def asks(client, region, model="joined", **more):
    client.ask(model, region, **more)
    await answered([client])
    return client.error()


both = pytest.mark.parametrize("protocol", [Http, Grpc])


@both
@pytest.mark.parametrize("model", MODELS)
def test_every_client_finds_its_own_numbers(
    repository, memories, gone_the_express_way, protocol, model
):
    async def scenario(dataplane, clients):
        for at, memory in enumerate(memories):
            register(dataplane, f"r{at}", memory)
        for turn in range(3):
            for at, (client, memory) in enumerate(zip(clients, memories, strict=True)):
                memory.fill([turn, at, 2, 3])
                client.ask(model, f"r{at}")
            await answered(clients)
            for at, (client, memory) in enumerate(zip(clients, memories, strict=True)):
                assert client.error() == ""
                assert memory.answer() == [turn, at, 2, 3]
        (statistics,) = dataplane.model_statistics(model)["model_stats"]
        assert statistics["inference_stats"]["success"]["count"] == 3 * len(clients)

    with_clients(repository, protocol, len(memories), scenario)
    assert gone_the_express_way == [True] * 2 * len(memories)


@both
def test_a_name_that_is_registered_anew_means_the_new_memory(repository, memories, protocol):
    old, new = memories[:2]

    async def scenario(dataplane, clients):
        register(dataplane, "r", old)
        old.fill([1, 1, 1, 1])
        for _ in range(2):
            assert await asks(clients[0], "r") == ""
        dataplane.shared_memory_unregister("system", "r")
        assert old.mapped() == 0
        assert "Unable to find shared memory region: 'r'" in await asks(clients[0], "r")
        register(dataplane, "r", new)
        for number in range(2, 5):
            new.fill([number] * 4)
            assert await asks(clients[0], "r") == ""
            assert new.answer() == [number] * 4
        assert old.answer() == [1, 1, 1, 1]

    with_clients(repository, protocol, 1, scenario)


@both
def test_a_region_stays_until_the_requests_that_hold_it_are_answered(
    repository, memories, protocol, gone_the_express_way
):
    memory = memories[0]

    async def scenario(dataplane, clients):
        register(dataplane, "r", memory)
        assert await asks(clients[0], "r") == ""
        memory.fill([5, 6, 7, 8])
        clients[0].ask("joined", "r")
        dataplane.shared_memory_unregister("system")
        assert len(dataplane.shared_memory_status("system")) == 1
        await answered(clients)
        assert (clients[0].error(), memory.answer()) == ("", [5, 6, 7, 8])
        assert dataplane.shared_memory_status("system") == []
        assert memory.mapped() == 0

    with_clients(repository, protocol, 1, scenario)
    assert gone_the_express_way == [True]


@both
def test_a_client_that_goes_lets_the_memory_go(repository, memories, protocol):
    memory = memories[0]

    async def scenario(dataplane, clients):
        register(dataplane, "r", memory)
        assert await asks(clients[0], "r") == ""
        memory.fill([1, 2, 3, 4])
        clients[0].ask("joined", "r")
        clients[0].wire.connection.connection_lost(None)
        dataplane.shared_memory_unregister("system")
        assert dataplane.shared_memory_status("system") == []
        assert await asks(clients[1], "r") != ""
        assert memory.answer() != [1, 2, 3, 4]

    with_clients(repository, protocol, 2, scenario)


@both
def test_memory_that_was_cut_off_is_told(repository, memories, protocol):
    memory = memories[0]

    async def scenario(dataplane, clients):
        register(dataplane, "r", memory)
        for _ in range(2):
            assert await asks(clients[0], "r") == ""
        os.truncate(memory.path, SIZE)
        assert "'r' was truncated by its owner" in await asks(clients[0], "r")
        memory.path.write_bytes(bytes(ROOM))
        assert await asks(clients[0], "r") == ""

    with_clients(repository, protocol, 1, scenario)


@both
def test_an_output_without_room_is_refused_each_time(
    repository, memories, protocol, gone_the_express_way
):
    memory = memories[0]

    async def scenario(dataplane, clients):
        register(dataplane, "r", memory)
        memory.fill([1, 2, 3, 4])
        for _ in range(3):
            error = await asks(clients[0], "r", size=SIZE - 4)
            assert "should be at least 16 bytes to hold the results" in error
        assert memory.answer() != [1, 2, 3, 4]
        assert await asks(clients[0], "r") == ""
        dataplane.shared_memory_unregister("system")
        assert dataplane.shared_memory_status("system") == []

    with_clients(repository, protocol, 1, scenario)
    assert gone_the_express_way == [True] * 2


@both
def test_words_that_no_client_says_any_more_keep_no_memory(repository, memories, protocol):
    async def scenario(dataplane, clients):
        for turn in range(50):
            memory = memories[turn % len(memories)]
            register(dataplane, f"r{turn}", memory)
            assert await asks(clients[0], f"r{turn}") == ""
            dataplane.shared_memory_unregister("system", f"r{turn}")
            assert memory.mapped() == 0

    with_clients(repository, protocol, 1, scenario)


@both
def test_a_batch_may_have_both_kinds_of_requests(repository, memories, protocol):
    memory = memories[0]
    numbers = np.array([[9, 8, 7, 6]], np.float32)

    async def scenario(dataplane, clients):
        beside = test_express.Http(dataplane, None)
        register(dataplane, "r", memory)
        for turn in range(4):
            memory.fill([turn, 2, 3, 4])
            clients[0].ask("joined", "r")
            beside.ask("joined", {"x": numbers + turn})
            await answered([clients[0], beside])
            assert (clients[0].error(), memory.answer()) == ("", [turn, 2, 3, 4])
            np.testing.assert_array_equal(beside.answer()["X"], numbers + turn)
        (statistics,) = dataplane.model_statistics("joined")["model_stats"]
        assert statistics["batch_stats"][-1]["batch_size"] == 2

    with_clients(repository, protocol, 1, scenario)
