"""Consumers over the real queue servers: answered once, whoever died in between."""

import asyncio
import json

import pytest

from tests.server.fake_dataplane import FakeDataPlane
from tests.server.queue_servers import NATS, REDIS, process
from tuili.server.queues.consumer import Consumer, _ended
from tuili.server.queues.sources import source_of

BODY = json.dumps(
    {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}
).encode()


class RedisClient:
    """A user of the queue over Redis."""

    def __init__(self, port):
        import redis.asyncio

        self.url = f"redis://127.0.0.1:{port}?stream=s&answers=a&claim_s=0.2"
        self._redis = redis.asyncio.from_url(f"redis://127.0.0.1:{port}")

    async def send(self, model, id_, body=BODY, length=""):
        fields = {"model": model, "id": id_, "body": body, "json_length": length}
        await self._redis.xadd("s", fields)

    async def answers(self):
        entries = await self._redis.xrange("a")
        return [(f[b"id"].decode(), int(f[b"status"]), f[b"body"]) for _, f in entries]

    async def left(self):
        return (await self._redis.xpending("s", "tuili"))["pending"]

    async def lose(self):
        """Be as after a restart without a disk."""
        await self._redis.flushall()

    async def close(self):
        await self._redis.aclose()


class NatsClient:
    """A user of the queue over NATS JetStream."""

    def __init__(self, port):
        self.url = f"nats://127.0.0.1:{port}?stream=s&subject=in&answers=out&claim_s=0.3"
        self._port = port
        self._client = self._js = None

    async def _context(self):
        import nats

        if self._js is None:
            self._client = await nats.connect(f"nats://127.0.0.1:{self._port}")
            self._js = self._client.jetstream()
            await self._js.add_stream(name="s", subjects=["in"])
        return self._js

    async def send(self, model, id_, body=BODY, length=""):
        js = await self._context()
        headers = {"Tuili-Model": model, "Nats-Msg-Id": id_}
        headers |= {"Inference-Header-Content-Length": length} if length else {}
        await js.publish("in", body, headers=headers)

    async def answers(self):
        from nats.js.errors import NotFoundError

        js = await self._context()
        found = []
        try:
            info = await js.stream_info("s-answers")
        except NotFoundError:
            return []
        for at in range(max(info.state.first_seq, 1), info.state.last_seq + 1):
            message = await js.get_msg("s-answers", at)
            headers = message.headers
            found.append((headers["Tuili-Id"], int(headers["Tuili-Status"]), message.data))
        return found

    async def left(self):
        js = await self._context()
        return (await js.consumer_info("s", "tuili")).num_ack_pending

    async def lose(self):
        """Be as after a restart without a disk."""
        js = await self._context()
        for name in ("s", "s-answers"):
            await js.delete_stream(name)
        await js.add_stream(name="s", subjects=["in"])

    async def close(self):
        if self._client is not None:
            await self._client.close()


SERVERS = {"redis": (REDIS, RedisClient), "nats": (NATS, NatsClient)}


@pytest.fixture(params=SERVERS)
def queue(request, tmp_path):
    command, client = SERVERS[request.param]
    with process(command, tmp_path) as port:
        yield lambda: client(port)


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the queue's server tells nobody
            await asyncio.sleep(0.01)


def run(queue, scenario):
    async def started():
        client = queue()
        try:
            await scenario(client)
        finally:
            await client.close()

    asyncio.run(started())


async def answered(client, count):
    async def enough():
        return len(await client.answers()) >= count

    await until(enough)
    return await client.answers()


def test_requests_are_answered_and_leave_the_queue(queue):
    async def scenario(client):
        consumer = Consumer(FakeDataPlane(), source_of(client.url))
        await client.send("identity", "1")
        await client.send("nope", "2")
        await client.send("identity", "3", b"no json")
        consumer.start()
        found = {id_: (status, body) for id_, status, body in await answered(client, 3)}
        await consumer.stop(5)
        assert json.loads(found["1"][1])["outputs"][0]["data"] == [1, 2]
        assert [found[key][0] for key in "123"] == [200, 404, 400]
        assert await client.left() == 0

    run(queue, scenario)


def test_what_a_dead_consumer_held_is_answered_by_another_once(queue):
    async def scenario(client):
        await client.send("held", "1")
        first, second = FakeDataPlane(), FakeDataPlane()
        dying = Consumer(first, source_of(client.url))
        dying.start()
        await first.holding.wait()
        await dying.stop(0)  # with the request in its hands
        taking_over = Consumer(second, source_of(client.url))
        taking_over.start()
        await second.holding.wait()
        second.release()
        assert len(await answered(client, 1)) == 1
        await taking_over.stop(5)
        assert await client.left() == 0

    run(queue, scenario)


def test_what_takes_longer_than_the_claim_stays_where_it_is_worked_on(queue):
    async def scenario(client):
        await client.send("held", "1")
        first, second = FakeDataPlane(), FakeDataPlane()
        # Long enough that a busy machine extends it in time.
        url = client.url.replace("claim_s=0.", "claim_s=2.")
        source, extended = source_of(url), []
        extend = source.extend

        async def counted(handles):
            await extend(handles)
            extended.append(handles)

        async def long_enough():
            return len(extended) > 4  # longer than the time after which others claim it

        source.extend = counted
        consumers = [Consumer(first, source), Consumer(second, source_of(url))]
        consumers[0].start()
        await first.holding.wait()
        consumers[1].start()
        await until(long_enough)
        first.release()
        assert [id_ for id_, _, _ in await answered(client, 1)] == ["1"]
        for each in consumers:
            await each.stop(5)
        assert (len(first.requests), len(second.requests)) == (1, 0)

    run(queue, scenario)


def test_the_same_id_is_answered_once(queue):
    async def scenario(client):
        consumer = Consumer(FakeDataPlane(), source_of(client.url))
        for _ in range(3):
            await client.send("identity", "7")
        await client.send("identity", "8")
        consumer.start()
        await answered(client, 2)

        async def empty():
            return await client.left() == 0

        await until(empty)
        await consumer.stop(5)
        assert sorted(id_ for id_, _, _ in await client.answers()) == ["7", "8"]

    run(queue, scenario)


def test_a_full_server_is_tried_again(queue):
    async def scenario(client):
        dataplane = FakeDataPlane()
        consumer = Consumer(dataplane, source_of(client.url))
        await client.send("busy", "1")
        consumer.start()

        async def twice():
            return len(dataplane.requests) >= 2

        await until(twice)
        await consumer.stop(5)
        assert await client.answers() == []

    run(queue, scenario)


def test_a_length_that_is_no_number_does_not_hold_up_the_queue(queue):
    async def scenario(client):
        consumer = Consumer(FakeDataPlane(), source_of(client.url))
        await client.send("identity", "1", length="\u00b2")
        await client.send("identity", "2")
        consumer.start()
        found = await answered(client, 2)
        await consumer.stop(5)
        assert sorted((id_, status) for id_, status, _ in found) == [("1", 200), ("2", 200)]

    run(queue, scenario)


def test_a_queue_that_lost_everything_is_made_anew(queue, monkeypatch):
    monkeypatch.setattr("tuili.server.queues.nats_jetstream._ASK_EVERY_S", 0.0)

    async def scenario(client):
        consumer = Consumer(FakeDataPlane(), source_of(client.url))
        await client.send("identity", "1")
        consumer.start()
        await answered(client, 1)
        await client.lose()
        await client.send("identity", "2")

        async def second():
            return [id_ for id_, _, _ in await client.answers()] == ["2"]

        await until(second)
        await consumer.stop(5)

    run(queue, scenario)


def test_a_server_whose_models_hang_stops(queue, monkeypatch):
    monkeypatch.setattr("tuili.server.queues.consumer._FETCH_S", 0.1)

    async def scenario(client):
        dataplane = FakeDataPlane()
        consumer = Consumer(dataplane, source_of(client.url), concurrency=1)
        await client.send("held", "1")
        await client.send("held", "2")
        consumer.start()
        await dataplane.holding.wait()
        async with asyncio.timeout(5):
            await consumer.stop(0.1)
        assert await client.answers() == []

    run(queue, scenario)


def test_a_client_that_swallows_a_cancellation_is_cancelled_again():
    swallowed = 0

    async def deaf():
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 2:
                    raise

    async def scenario():
        async with asyncio.timeout(30):
            await _ended({asyncio.create_task(deaf())}, 0.01)

    asyncio.run(scenario())
    assert swallowed == 2


@pytest.mark.parametrize("scheme", ["redis", "nats"])
def test_a_server_whose_queue_never_was_there_says_so_and_stops(scheme, monkeypatch, caplog):
    monkeypatch.setattr("tuili.server.queues.nats_jetstream._CONNECT_S", 0.2)

    async def scenario():
        consumer = Consumer(FakeDataPlane(), source_of(f"{scheme}://127.0.0.1:9"))
        consumer.start()
        while "trying again" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await consumer.stop(0.1)

    asyncio.run(scenario())
    assert "onnect" in caplog.text


def test_an_answer_too_large_for_the_queue_is_told_as_such(tmp_path):
    (tmp_path / "small.conf").write_text("max_payload: 2048")
    with process(NATS + " -c {folder}/small.conf", tmp_path) as port:

        async def scenario(client):
            consumer = Consumer(FakeDataPlane(), source_of(client.url))
            # Its answer in JSON is longer than the request.
            await client.send("identity", "1", LONG)
            consumer.start()
            ((_, status, body),) = await answered(client, 1)
            await consumer.stop(5)
            assert (status, b"max_payload" in body) == (413, True)
            assert await client.left() == 0

        run(lambda: NatsClient(port), scenario)


LONG = json.dumps(
    {
        "inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [800], "data": [1] * 800}],
        "outputs": [{"name": "OUTPUT"}],
    },
    separators=(",", ":"),
).encode()
