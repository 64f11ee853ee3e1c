"""Clients that unregister, unlink or replace shared memory while requests in a host use it."""

import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import serving

# It waits in the middle of a run until the test lets it through.
WAITING = """
from pathlib import Path

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        Path({gate!r}).read_text()
        return {{"y": inputs["x"] * 2}}
"""
CONFIG = """
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
"""


class Memory:
    """A client's shared memory: the numbers of an input, and behind them place for the output."""

    def __init__(self, numbers):
        x = np.array(numbers, np.float32)
        self.size = x.nbytes
        self._memory = shared_memory.SharedMemory(create=True, size=2 * x.nbytes)
        self.name = self._memory.name
        self._unlinked = False
        self._arrays = np.ndarray((2, len(x)), np.float32, self._memory.buf)
        self._arrays[0], self._arrays[1] = x, 0

    def output(self):
        return self._arrays[1].tolist()

    def clear(self):
        self._arrays[1] = 0

    def unlink(self):
        if not self._unlinked:
            self._unlinked = True
            self._memory.unlink()

    def close(self):
        del self._arrays
        self._memory.close()
        self.unlink()


@contextmanager
def memories(*numbers):
    found = [Memory(each) for each in numbers]
    try:
        yield found
    finally:
        for each in found:
            each.close()


def infer(library, url, memory):
    """Ask over a connection of its own, with the region `r` for input and output."""
    x = library.InferInput("x", [memory.size // 4], "FP32")
    x.set_shared_memory("r", memory.size)
    y = library.InferRequestedOutput("y")
    y.set_shared_memory("r", memory.size, offset=memory.size)
    with library.InferenceServerClient(url) as client:
        client.infer("m", [x], outputs=[y])


def registered(client):
    found = client.get_system_shared_memory_status()
    found = found if isinstance(found, list) else list(found.regions.values())
    return [each["byte_size"] if isinstance(each, dict) else each.byte_size for each in found]


def holds(server, memory):
    """Whether the server's process has the memory mapped or open."""
    folder = Path(f"/proc/{server.process.pid}")
    opened = " ".join(map(target, (folder / "fd").iterdir()))
    return memory.name in opened or memory.name in (folder / "maps").read_text()


def target(descriptor):
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""  # closed since


def lets_go(server, memory):
    """Whether the server is rid of the memory, soon after an answer has left."""
    until = time.monotonic() + 5
    while holds(server, memory) and time.monotonic() < until:
        pass
    return not holds(server, memory)


def waiting(server):
    """How many requests are in the model's queue."""
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics") as page:
        text = page.read().decode()
    name = 'nv_inference_pending_request_count{model="m",version="1"} '
    return float(text.split(name)[1].split()[0])


def settles(server):
    """Wait until as many requests wait as a while before, and some do."""
    last, same = 0.0, 0
    while same < 100:
        now = waiting(server)
        last, same = now, same + 1 if now == last > 0 else 0


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_every_request_keeps_the_memory_that_it_named_until_its_end(tmp_path, transport):
    library = pytest.importorskip(f"tritonclient.{transport}")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "repository" / "m" / "1").mkdir(parents=True)
    (tmp_path / "repository" / "m" / "config.pbtxt").write_text(CONFIG)
    source = WAITING.format(gate=str(gate))
    (tmp_path / "repository" / "m" / "1" / "model.py").write_text(source)
    with (
        memories([1, 2, 3, 4], range(2048), [5]) as (first, second, third),
        ThreadPoolExecutor(3) as pool,
        serving(tmp_path / "repository", "--allow-client-shm") as server,
        library.InferenceServerClient(server.url(transport)) as client,
    ):
        url = server.url(transport)

        def replace(memory):
            client.unregister_system_shared_memory()
            client.register_system_shared_memory("r", f"/{memory.name}", 2 * memory.size)

        replace(first)
        answers = [pool.submit(infer, library, url, first)]
        with gate.open("w"):  # it runs
            client.unregister_system_shared_memory()
            assert registered(client) == [2 * first.size]
            first.unlink()
            replace(second)
            assert registered(client) == [2 * second.size]
            assert holds(server, first)
        answers[0].result(10)
        assert first.output() == [2, 4, 6, 8]
        assert lets_go(server, first)

        answers = [pool.submit(infer, library, url, second)]
        with gate.open("w"):
            # What comes while the region is to go may still use it, as in Triton.
            client.unregister_system_shared_memory("r")
            answers += [pool.submit(infer, library, url, second) for _ in range(2)]
            settles(server)  # both have come: in the queue, or one in the host behind the first
            replace(third)
        for left, answer in zip((2, 1, 0), as_completed(answers, 10), strict=True):
            answer.result()
            assert second.output() == [2 * each for each in range(2048)]
            if left:
                assert holds(server, second)
                with gate.open("w"):
                    second.clear()
        assert lets_go(server, second)

        assert registered(client) == [2 * third.size]
        answers = [pool.submit(infer, library, url, third)]
        with gate.open("w"):
            client.unregister_system_shared_memory()
        answers[0].result(10)
        assert third.output() == [10]
        assert registered(client) == []
        assert lets_go(server, third)
