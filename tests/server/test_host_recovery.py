"""What a dying, hanging or growing model host may cost: its own run, never those behind it."""

import asyncio
import errno
import os
from pathlib import Path

import numpy as np
import pytest

from tests.server.test_dataplane import infer
from tests.server.test_hosts import CONFIG, add, answer, ask, host_of, parameter, run, until
from tuili.errors import Unavailable

# One request per batch, so that a second one waits in the second slot.
ALONE = CONFIG.replace("dynamic_batching { }", "").replace("max_batch_size: 8", "max_batch_size: 1")
SLOW = """
import os, signal, time

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        x = inputs["x"]
        time.sleep(float(x[0, 0]))
        if x[0, 1] == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return {"y": x}
"""
HOARD = """
import time
import numpy as np

class Model:
    def __init__(self, parameters):
        self.hoard = []

    def run(self, inputs):
        self.hoard.append(np.ones(4 << 20, np.uint8))
        time.sleep(0.005)
        return {"y": inputs["x"] * 2}
"""


def once_only(config):
    return config + parameter("idempotent", "false")


def test_a_request_that_waited_behind_a_crash_survives_even_if_it_may_run_only_once(tmp_path):
    add(tmp_path, config=once_only(ALONE), source=SLOW)

    async def scenario(dataplane):
        await infer(dataplane, ask(0.05, 0))  # slow enough for the second slot to be used
        crash = asyncio.ensure_future(infer(dataplane, ask(0.2, 1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(infer(dataplane, ask(0.0, 2)))
        with pytest.raises(Unavailable, match="the model host died: signal 11"):
            await crash
        assert (await behind).outputs[0].data.tolist() == [[0.0, 2.0]]

    run(tmp_path, scenario)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_host_that_died_leaves_no_descriptor_behind(tmp_path):
    add(tmp_path, config=ALONE, source=SLOW)

    async def scenario(dataplane):
        host = host_of(dataplane)
        counts = []
        for _ in range(3):
            found = await infer(dataplane, ask(0.0, 2))
            assert found.outputs[0].data.tolist() == [[0.0, 2.0]]
            counts.append(descriptors())
            host.kill()
            deaths = host.policy.deaths
            await until(lambda deaths=deaths: host.up and host.policy.deaths > deaths)
        assert max(counts) <= counts[0]

    run(tmp_path, scenario)


def test_waiting_behind_a_slow_run_is_not_hanging(tmp_path):
    add(tmp_path, config=ALONE + parameter("host_run_timeout_s", "0.5"), source=SLOW)

    async def scenario(dataplane):
        await infer(dataplane, ask(0.05, 0))
        found = await asyncio.gather(*(infer(dataplane, ask(0.3, n)) for n in (2, 3, 4)))
        assert [each.outputs[0].data[0, 1] for each in found] == [2, 3, 4]
        assert host_of(dataplane).policy.deaths == 0

    run(tmp_path, scenario)


def test_a_busy_host_that_grew_too_large_is_recycled_and_loses_nothing(tmp_path):
    add(tmp_path, config=ALONE + parameter("host_max_rss_mb", "200"), source=HOARD)

    async def scenario(dataplane):
        host = host_of(dataplane)
        answers = []

        async def keep_asking():
            while not host.policy.deaths:
                answers.append(await answer(dataplane, 1, 2))

        async with asyncio.timeout(60):
            await asyncio.gather(*(keep_asking() for _ in range(4)))
        assert all(each == [[2.0, 4.0]] for each in answers)
        await until(lambda: host.up)
        assert np.array_equal(await answer(dataplane, 3), [[6.0]])

    run(tmp_path, scenario)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_host_that_cannot_be_started_for_now_is_started_later(tmp_path, monkeypatch):
    add(tmp_path)

    async def scenario(dataplane):
        host = host_of(dataplane)
        host.kill()
        await until(lambda: not host.up)
        assert await answer(dataplane, 2) == [[4.0]]
        before = open_files()
        memory, refused = os.memfd_create, []

        def none_left(*given):
            if len(refused) < 2 and given[0].endswith("_1"):
                refused.append(given)
                raise OSError(errno.EMFILE, "Too many open files")
            return memory(*given)

        monkeypatch.setattr(os, "memfd_create", none_left)
        host.kill()
        await until(lambda: "no model host starts ([Errno 24] Too many open files)" in host.reason)
        assert not dataplane.model_ready("m")
        await until(lambda: host.up)
        assert await answer(dataplane, 2) == [[4.0]]
        assert len(refused) == 2
        await until(lambda: open_files() == before)

    run(tmp_path, scenario)
