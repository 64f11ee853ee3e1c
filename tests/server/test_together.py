"""Instances in processes of their own are loaded side by side."""

import asyncio
import socket
import threading

import pytest

from tests.server.test_dataplane import plane
from tests.server.test_hosts import CONFIG, add, parameter
from tuili.server.loading.together import together

# It loads once it is told to, which is when all instances ask: one after the other never do.
MEETING = """
import socket

class Model:
    def __init__(self, parameters):
        with socket.create_connection(("127.0.0.1", int(parameters["meeting"])), 20) as line:
            assert line.recv(1) == b"!", "nobody else came"

    def run(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.fixture
def meeting():
    """The port at which three instances wait for each other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve():
            lines = [listener.accept()[0] for _ in range(3)]
            for line in lines:
                line.sendall(b"!")
                line.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_instances_load_at_the_same_time(tmp_path, meeting):
    config = CONFIG + "instance_group { count: 3 }" + parameter("meeting", str(meeting))
    add(tmp_path, config=config, source=MEETING)

    async def scenario():
        dataplane = plane(tmp_path)
        await dataplane.start()
        try:
            return dataplane.repository.failures(), dataplane.model_ready("m")
        finally:
            await dataplane.close(10)

    assert asyncio.run(scenario()) == ({}, True)


def test_they_are_in_the_order_of_their_numbers():
    first = threading.Event()

    def load(number):
        if number == 0:
            assert first.wait(20)
        first.set()
        return number

    assert together(load, range(3)) == [0, 1, 2]


def test_what_one_fails_with_is_raised_once_all_have_ended():
    ended = []

    def load(number):
        ended.append(number)
        if number == 1:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        together(load, range(3))
    assert sorted(ended) == [0, 1, 2]
