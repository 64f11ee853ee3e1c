"""A server in a process of its own that promotes version 2, and may be killed on its way.

    python -m tests.server.control.promotion REPOSITORY KILL_AFTER

After the KILL_AFTER-th write of the journal the process gets SIGKILL (0: never). Prints the version
that answers at the start, then the one at the end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path

from tests.server.test_dataplane import infer, request
from tuili.server.control.store import SqliteStore
from tuili.server.dataplane import DataPlane
from tuili.server.options import ServerOptions

PLAN = {
    "model": "m", "name": "r", "candidate": 2, "metrics": {"error_rate": {"margin": 0.2}},
    "steps": [{"weight": weight, "min_time_s": 0, "min_samples": 5} for weight in (20, 50)],
}  # fmt: skip
append = SqliteStore.append
writes = count(1)


def counted(self, entry, after, epoch=None):
    written = append(self, entry, after, epoch)
    if next(writes) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return written


async def main() -> None:
    SqliteStore.append = counted
    dataplane = DataPlane(ServerOptions(repository=(Path(sys.argv[1]),)))
    await dataplane.start()
    dataplane._conducting.cancel()
    conductor = dataplane.conductor
    # No second server is there to lead; waiting for a dead one's lease would only take time.
    if conductor._store is not None:
        conductor._leadership._seen = conductor._store.lease()
        conductor._leadership._changed_at = -100.0
    print((await infer(dataplane, request())).version, flush=True)
    if "r" not in conductor.world.rollouts:
        await dataplane.rollouts.create(PLAN, "me")
    for _ in range(60):
        await conductor.reconciler.settle()
        await conductor.tick()
        if conductor.world.rollout("r").over:
            break
        for _ in range(100):
            await infer(dataplane, request())
    print((await infer(dataplane, request())).version, flush=True)
    await dataplane.close(10)


if __name__ == "__main__":
    asyncio.run(main())
