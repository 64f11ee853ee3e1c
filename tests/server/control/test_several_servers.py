"""Several servers over one journal act as one: SQLite, and PostgreSQL through its real server."""

import asyncio

import pytest

from tests.server.control.test_rollouts import PLAN, QUICK, identity, request
from tests.server.test_dataplane import infer
from tuili.errors import AlreadyExists
from tuili.server.control.leadership import TTL_S
from tuili.server.control.opening import open_store
from tuili.server.control.store import broken_link
from tuili.server.dataplane import DataPlane
from tuili.server.options import ServerOptions
from tuili.server.rollout.history import Entry


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


async def server(repository, state, clock):
    made = DataPlane(ServerOptions(repository=(repository,), state=state))
    made.conductor._clock = clock
    await made.start()
    made._conducting.cancel()
    return made


async def ticks(servers, count=3):
    for _ in range(count):
        for each in servers:
            await each.conductor.reconciler.settle()
            await each.conductor.tick()


async def ask(each, count, first=0):
    return [
        (await infer(each, request(x_user_id=f"user-{first + i}"))).version for i in range(count)
    ]


def test_servers_pool_their_numbers_and_hand_over(tmp_path, state):
    repository = tmp_path / "repository"
    identity(repository)
    # Each server alone sees too few answers for the step.
    name = f"r-{tmp_path.name}"
    plan = PLAN | {"name": name, "steps": [QUICK | {"min_samples": 130}]}

    async def scenario():
        clock = Clock()
        servers = [await server(repository, state, clock) for _ in range(3)]
        first, second, third = servers
        await first.rollouts.create(plan, "ann")
        await ticks(servers)
        assert [each.conductor.world.rollout(name).state.value for each in servers] == [
            "RUNNING"
        ] * 3
        assert [each.conductor.is_leader() for each in servers] == [True, False, False]
        # The same user gets the same version wherever the request lands.
        answers = [await ask(each, 60) for each in servers]
        assert answers[0] == answers[1] == answers[2]
        assert {"1", "2"} == set(answers[0])
        # The leader goes; a server that lives takes over after the lease has run out.
        await first.close(10)
        clock.now += 1.0
        await ticks([second, third], 1)
        assert not second.conductor.is_leader()
        clock.now += TTL_S
        await ticks([second, third])
        assert [second.conductor.is_leader(), third.conductor.is_leader()].count(True) == 1
        for each in (second, third):
            await ask(each, 120, first=1000)
        await ticks([second, third], 4)
        for each in (second, third):
            assert each.conductor.world.rollout(name).state.value == "PROMOTED"
            assert (await infer(each, request())).version == "2"
            await each.close(10)

    asyncio.run(scenario())


def test_an_entry_that_two_readers_find_counts_once(tmp_path, state):
    repository, model = tmp_path / "repository", "m"
    identity(repository)

    async def scenario():
        first, second = [await server(repository, state, Clock()) for _ in range(2)]
        await first.rollouts.rollback(model, 2, "ann")
        conductor = second.conductor
        before = conductor.events.get((model, "pointer"), 0)
        await asyncio.gather(*(conductor.read_new() for _ in range(3)))
        assert conductor.events[model, "pointer"] == before + 1
        for each in (first, second):
            await each.close(10)

    asyncio.run(scenario())


def test_the_store_keeps_its_promises(state):
    store = open_store(state)
    before = len(store.read(0))
    last = store.append(Entry("p", "label", "me", "why", numbers={"version": 1}), 0)
    with pytest.raises(AlreadyExists, match="model 'p' has moved on"):
        store.append(Entry("p", "label", "you"), 0)
    assert len(store.read(0)) == before + 1
    assert store.read(last.seq - 1) == [last]
    assert broken_link(store.read(0)) is None
    seen = store.lease()
    taken = store.take_lease("a", seen)
    assert taken is not None
    assert store.take_lease("b", seen) is None
    with pytest.raises(AlreadyExists, match="another server leads"):
        store.append(Entry("p", "label", "me"), last.seq, taken.epoch - 1)
    store.put_tally("a", "t", {"n": 1})
    store.put_tally("a", "t", {"n": 2})
    assert store.tallies("t") == {"a": {"n": 2}}
    store.forget_tallies("a", [])
    assert store.tallies("t") == {}
    store.close()
