"""A server in a process of its own that promotes version 2, and may be killed on its way.

    python -m tests.server.control.promotion REPOSITORY STATE MOMENT KILL_AT [follow]

At the KILL_AT-th write of the journal the process gets SIGKILL (0: never), inside the write's
transaction (`during`) or right after it (`after`). Prints the version that answers at the start,
then the one at the end. With `follow` it begins no roll-out: another server does, and leads until
a line on stdin says that it is dead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path

from tests.server.test_dataplane import infer, request
from tuili.server.control import leadership, postgres, store
from tuili.server.dataplane import DataPlane
from tuili.server.options import ServerOptions

PLAN = {
    "model": "m", "name": "r", "candidate": 2, "metrics": {"error_rate": {"margin": 0.2}},
    "steps": [{"weight": weight, "min_time_s": 0, "min_samples": 5} for weight in (20, 50)],
}  # fmt: skip
writes = count(1)


def plant(moment: str, kill_at: int) -> None:
    """Let the process die at one of its writes."""

    def fatal(work):
        def run(*arguments):
            done = work(*arguments)
            if next(writes) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return run

    if moment == "during":
        # The row is made after BEGIN, the checks and the lock, and before INSERT and COMMIT.
        store.to_row = postgres.to_row = fatal(store.to_row)
    else:
        for each in (store.SqliteStore, postgres.PostgresStore):
            each.append = fatal(each.append)


def lead_when_told() -> None:
    """Else who leads is a matter of who is quicker, and of who seems dead on a busy machine."""
    epoch, leadership.Leadership.epoch = leadership.Leadership.epoch, lambda *_: None

    def wait() -> None:
        sys.stdin.readline()
        leadership.Leadership.epoch = epoch

    threading.Thread(target=wait, daemon=True).start()


async def main(repository: str, state: str, *, follows: bool) -> None:
    leadership.TTL_S = 0.5
    if follows:
        lead_when_told()
    dataplane = DataPlane(ServerOptions(repository=(Path(repository),), state=state))
    await dataplane.start()
    dataplane._conducting.cancel()
    conductor = dataplane.conductor
    print((await infer(dataplane, request())).version, flush=True)
    if not follows and "r" not in conductor.world.rollouts:
        await dataplane.rollouts.create(PLAN, "me")
    while "r" not in conductor.world.rollouts or not conductor.world.rollout("r").over:
        await conductor.reconciler.settle()
        await conductor.tick()
        for _ in range(100):
            await infer(dataplane, request())
    print((await infer(dataplane, request())).version, flush=True)
    await dataplane.close(10)


if __name__ == "__main__":
    plant(sys.argv[3], int(sys.argv[4]))
    asyncio.run(main(sys.argv[1], sys.argv[2], follows="follow" in sys.argv[5:]))
