"""A clock that only the test moves; the loop's timers follow it."""

import asyncio
import time


class FakeClock:
    """Stands in for `time.monotonic`, which asyncio's own loop goes by too."""

    def __init__(self, now=1000.0):
        self.ns = int(now * 1e9)
        self._real = time.monotonic, time.monotonic_ns

    def __enter__(self):
        time.monotonic = lambda: self.ns / 1e9
        time.monotonic_ns = lambda: self.ns
        return self

    def __exit__(self, *_):
        time.monotonic, time.monotonic_ns = self._real

    @property
    def now(self):
        return self.ns / 1e9

    def advance(self, seconds):
        self.ns += int(seconds * 1e9)


async def settle(ticks=4):
    """Let the loop do what is due; never waits for real."""
    for _ in range(ticks):
        await asyncio.sleep(0)
