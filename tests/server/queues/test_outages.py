"""Servers that die of a request, and queues that die themselves: nothing is lost, nothing twice."""

import asyncio
import logging

import pytest

from tests.server.fake_dataplane import FakeDataPlane, FakeTicket
from tests.server.queue_servers import DURABLE_REDIS, NATS, REDIS, broker, process
from tests.server.queues.test_consumer import NatsClient, RedisClient, answered, run, until
from tuili.server.queues.consumer import LATER_S, Consumer
from tuili.server.queues.sources import source_of
from tuili.server.scheduling.restarts import RestartLimits
from tuili.server.telemetry.queue_metrics import queue_lines

SERVERS = {"redis": (REDIS, RedisClient), "nats": (NATS, NatsClient)}
DURABLE = {"redis": (DURABLE_REDIS, RedisClient), "nats": (NATS, NatsClient)}


class Mortal(FakeDataPlane):
    """Dies of requests to "deadly": neither those nor what comes behind is ever answered."""

    def __init__(self):
        super().__init__()
        self.died = asyncio.Event()

    def submit(self, request, reply):
        if request.model == "deadly":
            self.died.set()
        if self.died.is_set():
            request.model = "held"
        return super().submit(request, reply)


class Slow(FakeDataPlane):
    """Answers a little later, so that some are always in hand."""

    def submit(self, request, reply):
        loop = asyncio.get_running_loop()
        loop.call_later(0.002, super().submit, request, reply)
        return FakeTicket()


async def dead_letters(client):
    if isinstance(client, RedisClient):
        entries = await client._redis.xrange("s:dead")
        return [(f[b"id"].decode(), f[b"model"].decode(), f[b"why"].decode()) for _, f in entries]
    js = await client._context()
    message = await js.get_msg("s-dead", 1)
    told = message.headers
    return [(told["Tuili-Id"], told["Tuili-Model"], told["Tuili-Why"])]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_request_that_kills_each_server_is_given_up_and_costs_no_other_its_answer(kind, tmp_path):
    async def scenario(client):
        await client.send("deadly", "1")
        for id_ in "234":
            await client.send("identity", id_)
        lives = 0
        while len(await client.answers()) < 4:
            lives += 1
            dataplane = Mortal()
            consumer = Consumer(dataplane, source_of(client.url))
            consumer.start()
            done = asyncio.create_task(answered(client, 4))
            dies = asyncio.create_task(dataplane.died.wait())
            await asyncio.wait({done, dies}, return_when=asyncio.FIRST_COMPLETED)
            for each in (done, dies):
                each.cancel()
            await consumer.stop(0)
        # Twice with the others in hand, three times alone, and then no more.
        assert lives == 6
        found = {id_: (status, body) for id_, status, body in await client.answers()}
        assert [found[id_][0] for id_ in "1234"] == [500, 200, 200, 200]
        assert b"no server survived it" in found["1"][1]
        ((id_, model, why),) = await dead_letters(client)
        assert (id_, model, "no server survived it" in why) == ("1", "deadly", True)
        assert await client.left() == 0
        assert consumer.counts.outcomes["dead_letter"] == 1

    command, kind_of_client = SERVERS[kind]
    with process(command, tmp_path) as port:
        run(lambda: kind_of_client(port), scenario)


def test_what_servers_that_live_hold_does_not_hide_what_a_dead_one_held(tmp_path):
    with process(REDIS, tmp_path) as port:

        async def scenario(client):
            redis, url = client._redis, client.url.replace("claim_s=0.2", "claim_s=600")
            await redis.xgroup_create("s", "tuili", id="0", mkstream=True)
            for at in range(25):
                await client.send("identity", str(at))
            ((_, entries),) = await redis.xreadgroup("tuili", "another", {"s": ">"}, 25)
            # The last one has been with nobody for longer than `claim_s`.
            await redis.xclaim("s", "tuili", "another", 0, [entries[-1][0]], idle=700_000)
            consumer = Consumer(FakeDataPlane(), source_of(url), concurrency=1)
            consumer.start()
            assert [id_ for id_, _, _ in await answered(client, 1)] == ["24"]
            await consumer.stop(5)

        run(lambda: RedisClient(port), scenario)


@pytest.mark.parametrize("kind", DURABLE)
def test_a_queue_that_is_killed_and_comes_back_loses_nothing(kind, tmp_path):
    command, kind_of_client = DURABLE[kind]
    with broker(command, tmp_path) as server:

        async def scenario(client):
            dataplane = FakeDataPlane()
            consumer = Consumer(dataplane, source_of(client.url))
            for id_ in "123":
                await client.send("identity", id_)
            await client.send("held", "4")
            consumer.start()
            await answered(client, 3)
            await dataplane.holding.wait()
            server.kill()

            async def noticed():
                return not consumer.counts.up

            await until(noticed)
            dataplane.release()  # its answer cannot be written now
            server.start()
            again = kind_of_client(server.port)
            await again.send("identity", "5")

            async def whole():
                # What was held comes back after its time, and runs once more.
                dataplane.release()
                return len(await again.answers()) >= 5

            await until(whole)
            assert sorted(id_ for id_, _, _ in await again.answers()) == list("12345")
            assert await again.left() == 0
            await again.close()
            await consumer.stop(5)
            told = dict(line.rsplit(" ", 1) for line in queue_lines([consumer.counts]))
            label = f'queue="{consumer.counts.name}"'
            assert (
                told[f"tuili_queue_up{{{label}}}"],
                told[f"tuili_queue_in_hand{{{label}}}"],
            ) == ("1", "0")
            assert int(told[f"tuili_queue_outages{{{label}}}"]) >= 1

        run(lambda: kind_of_client(server.port), scenario)


@pytest.mark.parametrize("kind", DURABLE)
def test_a_queue_that_is_killed_under_load_twice_loses_nothing_and_is_told_of_little(
    kind, tmp_path, caplog
):
    count = 120
    command, kind_of_client = DURABLE[kind]
    with broker(command, tmp_path) as server:

        async def scenario(client):
            for at in range(count):
                await client.send("identity", str(at))
            consumer = Consumer(Slow(), source_of(client.url), concurrency=4)
            consumer.start()
            for part in (3, 2):
                await answered(client, count // part)
                await client.close()
                server.kill()

                async def noticed():
                    return not consumer.counts.up

                async def back():
                    return consumer.counts.up

                await until(noticed)
                server.start()
                # Answers enough for the next outage may be there from before this one.
                await until(back)
                client = kind_of_client(server.port)
            found = await answered(client, count)
            assert sorted(int(id_) for id_, _, _ in found) == list(range(count))
            assert {status for _, status, _ in found} == {200}

            async def nothing_left():
                return not await client.left()

            await until(nothing_left)
            await client.close()
            await consumer.stop(5)
            # Each outage takes some seconds at most: no more looks than the back-off allows.
            assert 2 <= consumer.counts.outages < 20

        run(lambda: kind_of_client(server.port), scenario)
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len([each for each in told if "trying again" in each]) < 8
    # Once for each outage, and once more where an answer got through between two that did not.
    assert len([each for each in told if "cannot be written" in each]) <= 4
    assert len([each for each in told if "not extended" in each]) <= 2


class Refusing:
    """A queue that cannot be reached."""

    name, claim_s = "a queue", 60.0

    async def open(self):
        raise OSError("nobody is there")

    async def close(self):
        pass


def test_a_queue_that_stays_away_is_told_once_and_asked_after_longer_and_longer(
    monkeypatch, caplog
):
    waited = []

    async def sleep(delay):
        waited.append(delay)
        if len(waited) == 50:
            raise asyncio.CancelledError

    async def scenario():
        consumer = Consumer(FakeDataPlane(), Refusing())
        with pytest.raises(asyncio.CancelledError):
            await consumer._run()

    with monkeypatch.context() as patch:
        patch.setattr("tuili.server.queues.consumer.asyncio.sleep", sleep)
        asyncio.run(scenario())
    assert waited == sorted(waited)
    assert waited[0] > 0
    assert waited[-1] >= 5
    (told,) = caplog.messages
    assert "nobody is there" in told


def test_who_comes_while_a_model_is_given_up_is_tried_until_it_is_back():
    assert sum(LATER_S) > 2 * RestartLimits().cool_down_s
