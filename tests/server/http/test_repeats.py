"""Requests like the one before them are taken by one comparison, and mean what they say."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.server.http.wire import Wire, binary_infer
from tests.server.test_dataplane import add, plane


def ask(*values: float) -> bytes:
    array = np.array([values], np.float32)
    entry = {"name": "x", "datatype": "FP32", "shape": array.shape}
    document = {
        "inputs": [entry | {"parameters": {"binary_data_size": array.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    return binary_infer(document, array.tobytes(), "m")


FIRST = ask(0, 0) + ask(1, 1)  # read, and learnt from
REPEATED = ask(2, 2) + ask(3, 3) + ask(4, 4)


def answers(tmp_path, feed, count: int) -> list[list[float]]:
    """The numbers in the answers to what `feed` feeds to a connection."""

    async def run() -> list[bytes]:
        add(tmp_path, "m", 1)
        dataplane = plane(tmp_path)
        await dataplane.start()
        wire = Wire(dataplane=dataplane)
        feed(wire)
        async with asyncio.timeout(20):
            while len(wire.answers()) < count:  # noqa: ASYNC110 - a tick is no event
                await asyncio.sleep(0)
        await dataplane.close(10)
        return [answer.body[-8:] for answer in wire.answers()]

    return [np.frombuffer(body, np.float32).tolist() for body in asyncio.run(run())]


def test_pipelined_requests_are_answered_in_order(tmp_path):
    found = answers(tmp_path, lambda wire: wire.feed(FIRST + REPEATED + ask(5, 5)), 6)
    assert found == [[at, at] for at in range(6)]


@pytest.mark.parametrize("cut", range(1, len(REPEATED), 13))
def test_requests_mean_the_same_wherever_the_network_cuts_them(tmp_path, cut):
    def feed(wire: Wire) -> None:
        for piece in (FIRST, REPEATED[:cut], REPEATED[cut:]):
            wire.feed(piece)

    assert answers(tmp_path, feed, 5) == [[at, at] for at in range(5)]
