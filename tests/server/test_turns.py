"""Loads that take turns, and loads that hang."""

import asyncio
import threading

import pytest

from tests.server.test_dataplane import add as add_identity
from tests.server.test_dataplane import plane
from tests.server.test_hosts import add, ask, host_of, run, until
from tuili.errors import InvalidModel
from tuili.server.loading.off_loop import off_loop
from tuili.server.loading.turns import Turns

HANGS = "import time\nwhile True: time.sleep(0.01)\n"


def hasty(dataplane, count=1):
    """Let loads be overdue at once."""
    dataplane.launcher.turns = turns = Turns(count, patience_s=0.05)
    dataplane.repository.abandon = turns.abandon


def test_a_load_that_hangs_stops_no_other_and_ends_with_its_unloading(tmp_path):
    add_identity(tmp_path, "other", 1)

    async def scenario(dataplane):
        hasty(dataplane)
        add(tmp_path, "hangs", source=HANGS)
        hanging = asyncio.ensure_future(dataplane.repository.load("hangs"))
        await until(lambda: dataplane.launcher.turns._loads)
        await dataplane.repository.load("other")
        await dataplane.repository.unload("hangs")
        with pytest.raises(InvalidModel, match="its model host died while loading: signal 9"):
            await hanging
        await dataplane.repository.load("other")

    run(tmp_path, scenario)


def test_a_server_ends_while_a_model_hangs_in_its_load_and_another_in_a_run(tmp_path):
    add(tmp_path)

    async def scenario():
        dataplane = plane(tmp_path)
        await dataplane.start()
        add(tmp_path, "hangs", source=HANGS)
        hanging = asyncio.ensure_future(dataplane.repository.load("hangs"))
        host = host_of(dataplane)
        dataplane.submit(ask(14), lambda _: None)
        await until(lambda: host.is_running)
        await until(lambda: any(load.processes for load in dataplane.launcher.turns._loads))
        assert not await dataplane.close(0.05)
        with pytest.raises(InvalidModel, match="signal 9"):
            await hanging
        assert host._child.process.wait(10) == -9

    asyncio.run(scenario())


@pytest.mark.parametrize("processes", [0, 1])
def test_a_turn_is_given_away_by_what_waits_for_its_process_only(processes):
    async def scenario():
        turns, given = Turns(1, patience_s=0.0), asyncio.Event()

        async def other():
            async with turns.taken("other"):
                given.set()

        async with turns.taken("first") as load:
            load.processes += [None] * processes
            waiting = asyncio.ensure_future(other())
            for _ in range(20):
                await asyncio.sleep(0)
            assert given.is_set() == bool(processes)
        await waiting

    asyncio.run(scenario())


def test_hanging_work_has_a_thread_of_its_own_for_which_nobody_waits():
    async def scenario():
        stop = threading.Event()
        hanging = [asyncio.ensure_future(off_loop(stop.wait)) for _ in range(100)]
        assert await off_loop(lambda: threading.current_thread().daemon)
        stop.set()
        await asyncio.gather(*hanging)

    asyncio.run(scenario())
