"""What a front end passes on to the owner."""

import asyncio

import grpc
import pytest

from tuili.errors import InternalError, Unavailable
from tuili.server.frontends.grpc_front import Serialized, Unary, told
from tuili.server.protocol.status import pushback_ms, status_of


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
