"""What a front end passes on to the owner."""

import asyncio

import grpc
import pytest

from tuili.errors import InternalError, TooLarge, Unavailable
from tuili.server.frontends.grpc_front import PassedStream, Serialized, Unary, told
from tuili.server.protocol.status import pushback_ms, status_of
from tuili.server.room import Room


@pytest.mark.filterwarnings("error")
def test_a_call_that_is_taken_back_at_once_is_not_passed_on():
    asked, told = [], []

    async def ask():
        asked.append(1)
        return Serialized(b"")

    async def scenario():
        Unary(ask, told.append).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert asked == told == []


@pytest.mark.parametrize(
    ("error", "heard"), [(Unavailable("busy"), Unavailable), (KeyError("a bug"), InternalError)]
)
def test_whatever_becomes_of_a_call_is_told(error, heard):
    async def ask():
        raise error

    async def scenario():
        found = asyncio.get_running_loop().create_future()
        Unary(ask, found.set_result)
        return await found

    assert isinstance(asyncio.run(scenario()), heard)


class OwnersError:
    """As grpcio has it."""

    def __init__(self, *trailers):
        self._trailers = trailers

    def details(self):
        return "full"

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def trailing_metadata(self):
        return self._trailers


@pytest.mark.parametrize(
    ("trailers", "pushback"),
    [((), None), ((("x", "y"), ("grpc-retry-pushback-ms", "250")), 250)],
)
def test_when_a_try_may_pass_is_passed_on(trailers, pushback):
    error = told(OwnersError(*trailers))
    assert (str(error), status_of(error).grpc, pushback_ms(error)) == ("full", 14, pushback)


class SlowOwner:
    """Takes one message for each time that it `reads`."""

    def __init__(self):
        self.reads = asyncio.Semaphore(0)
        self.taken = []

    def stream(self, path, deadline, origin):
        return self

    async def write(self, message):
        await self.reads.acquire()
        self.taken.append(len(message))

    async def done_writing(self):
        pass

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.get_running_loop().create_future()

    def cancel(self):
        pass


class Origin:
    deadline = None


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def test_messages_that_wait_to_be_passed_on_take_room():
    async def scenario():
        room, owner, ended = Room(250_000), SlowOwner(), []
        stream = PassedStream(owner, room, lambda _: None, ended.append, Origin())
        for size in (100_000, 100, 100_000):
            stream.receive(bytes(size))
        assert room.held_bytes == 200_000
        await settled()
        owner.reads.release()
        await settled()
        assert (room.held_bytes, owner.taken) == (100_000, [100_000])
        other = PassedStream(owner, room, lambda _: None, ended.append, Origin())
        other.receive(bytes(250_001))
        assert [type(each) for each in ended] == [TooLarge]
        assert room.held_bytes == 100_000
        stream.cancel()
        await settled()
        assert room.held_bytes == 0

    asyncio.run(scenario())
