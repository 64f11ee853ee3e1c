"""What a request brought goes when it is answered, not when a collector of garbage comes by."""

import asyncio
import gc
from contextlib import contextmanager, suppress

import pytest

from tests.server.grpc.wire import BIG, INFER, STREAM, Wire, framed, infer_request
from tests.server.test_dataplane import infer, run
from tests.server.test_ensemble_streams import COUNT_CODE, INSIDE, PLAIN, ask, ensemble, write
from tuili.server.http.chunked import ChunkedBody
from tuili.server.http.head import BadHead

ONCE = """
class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        return {"v": inputs["k"]}
"""
MANY = PLAIN.format("IN", "OUT") + "model_transaction_policy { decoupled: true }"
MANY_CODE = COUNT_CODE.replace('"n"', '"IN"').replace('"k"', '"OUT"')


@contextmanager
def left_over():
    """The types of tuili's objects that only a collector of garbage would free, once it is over."""
    found = set()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found |= {type(each) for each in gc.garbage if type(each).__module__.startswith("tuili")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.fixture
def repository(tmp_path):
    write(tmp_path, "once", PLAIN.format("k", "v") + INSIDE, ONCE)
    write(tmp_path, "many", MANY + INSIDE, MANY_CODE)
    steps = [("once", "k", "IN", "v", "mid"), ("once", "k", "mid", "v", "OUT")]
    write(tmp_path, "steps", ensemble("steps", *steps), "")
    steps[0] = ("many", "IN", "IN", "OUT", "mid")
    write(tmp_path, "branches", ensemble("branches", *steps), "")
    return tmp_path


async def streamed(dataplane, asked):
    over = asyncio.get_running_loop().create_future()
    dataplane.submit_stream(asked, lambda answer, final: final and over.set_result(answer))
    await asyncio.wait_for(over, 10)


@pytest.mark.parametrize(
    ("model", "submit"),
    [("steps", infer), ("steps", streamed), ("many", streamed), ("branches", streamed)],
)
def test_a_request_that_was_answered_leaves_none(repository, model, submit):
    async def scenario(dataplane):
        await submit(dataplane, ask(model, 3))
        with left_over() as found:
            for _ in range(3):
                await submit(dataplane, ask(model, 3))
            await asyncio.sleep(0)
        assert not found

    run(repository, scenario)


def test_a_call_over_grpc_leaves_none():
    wire = Wire()
    with left_over() as found:
        for path in (INFER, STREAM) * 2:
            number = wire.open(path)
            wire.send(number, framed(infer_request(BIG)))
            wire.sync()
            assert wire.replies[number].status == 0
        wire.dataplane.requests.clear()
    assert not found


@pytest.mark.parametrize("data", [b"1\r\na\r\n0\r\n\r\n", b"1\r\na\r\n" * 11])
def test_a_chunked_body_that_was_taken_or_refused_leaves_none(data):
    with left_over() as found, suppress(BadHead):
        ChunkedBody(1000, 10).feed(data)
    assert not found
