"""What a front end passes on to the owner."""

import asyncio

import pytest

from tuili.errors import InternalError, Unavailable
from tuili.server.frontends.grpc_front import Serialized, Unary


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
    ("error", "told"), [(Unavailable("busy"), Unavailable), (KeyError("a bug"), InternalError)]
)
def test_whatever_becomes_of_a_call_is_told(error, told):
    async def ask():
        raise error

    async def scenario():
        found = asyncio.get_running_loop().create_future()
        Unary(ask, found.set_result)
        return await found

    assert isinstance(asyncio.run(scenario()), told)
