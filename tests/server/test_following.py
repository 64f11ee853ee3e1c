"""The server keeps up with its repositories."""

import asyncio
from pathlib import Path

import pytest

from tests.server.test_dataplane import add, plane
from tuili.errors import NotFound
from tuili.server.following import follow
from tuili.server.options import ServerOptions


class Looks:
    """A data plane that is looked with: raises these, one a look, then finds nothing."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.found = asyncio.Event()

    async def poll(self):
        if self.errors:
            raise self.errors.pop(0)
        self.found.set()
        return True


@pytest.mark.parametrize(
    "error", [NotFound("no repository"), OSError(5, "input/output error"), KeyError("a bug")]
)
def test_a_look_that_fails_is_not_the_last_one(error):
    options = ServerOptions(
        repository=(Path(),), model_control_mode="poll", poll_interval_s=0.01, settle_s=0.01
    )

    async def scenario():
        looks = Looks(error, error)
        following = asyncio.create_task(follow(looks, options))
        async with asyncio.timeout(30):
            await looks.found.wait()
        following.cancel()

    asyncio.run(scenario())


def test_links_that_lead_nowhere_are_no_part_of_a_model(tmp_path):
    add(tmp_path, "m", 1)
    (tmp_path / "m" / "loop").symlink_to("loop")
    (tmp_path / "m" / "1" / "gone").symlink_to("nothing")

    async def scenario():
        dataplane = plane(tmp_path, model_control_mode="poll", settle_s=0.0)
        await dataplane.start()
        assert dataplane.model_ready("m")
        add(tmp_path, "n", 1)
        await dataplane.poll()
        assert dataplane.model_ready("n")
        await dataplane.close(5)

    asyncio.run(scenario())
