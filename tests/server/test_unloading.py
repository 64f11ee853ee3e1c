"""What is left of a version that is not served any more: nothing."""

import gc
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server.test_dataplane import add as add_identity
from tests.server.test_dataplane import infer
from tests.server.test_ensemble import TWO_STEPS
from tests.server.test_ensemble import ask as ask_ensemble
from tests.server.test_hosts import add, answer, run, until


def slots_in_memory():
    """The memory of hosts that this process has open, by inode."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one of the folder itself
            if "tuili_host" in str(each.readlink()):
                found.add(each.stat().st_ino)
    return found


@pytest.mark.parametrize("how", ["unloaded", "loaded again"])
def test_memory_of_a_host_goes_with_its_version(tmp_path, how):
    add(tmp_path)
    others = slots_in_memory()

    async def scenario(dataplane):
        assert await answer(dataplane, 1) == [[2.0]]
        own, old = slots_in_memory() - others, weakref.ref(dataplane._live["m"][""])
        assert own
        if how == "unloaded":
            await dataplane.repository.unload("m")
        else:
            await dataplane.repository.load("m")
            assert await answer(dataplane, 1) == [[2.0]]
        await until(lambda: gc.collect() is not None and old() is None)
        await until(lambda: own.isdisjoint(slots_in_memory()))

    run(tmp_path, scenario)


def test_ensembles_and_models_of_this_process_go_too(tmp_path):
    for name in "ab":
        add_identity(tmp_path, name, 1)
    add_identity(tmp_path, "e", 1, config=TWO_STEPS)

    async def scenario(dataplane):
        await infer(dataplane, ask_ensemble())
        old = [weakref.ref(dataplane._live[name][""]) for name in "eab"]
        for name in "eab":
            await dataplane.repository.unload(name)
        gc.collect()
        assert [each() for each in old] == [None] * 3

    run(tmp_path, scenario)
