"""Driver: sends requests over its channels in a closed or an open loop, and logs what comes back.

One thread, one poller, no framework: some 6 us a request, most of it the kernel's, so that what is
measured is the server. While the next request of an open loop is due within a millisecond the
poller is not slept in, because its clock is no finer.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tuili.bench.load.arrivals import Arrivals
from tuili.bench.load.exchange import Channel, Exchange, Finished, Log, Verdict
from tuili.errors import Unavailable

Connect = Callable[[Finished], Channel]

_SPIN_S: Final = 1.5e-3
_POLL_S: Final = 0.05
_RETRY_S: Final = 0.05
_RETRIES: Final = 200
_FOREVER: Final = float("inf")


class _Poller(Protocol):
    def register(self, fd: int, eventmask: int, /) -> None: ...
    def modify(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...


class Driver:
    """The channels of one load and the requests that they send in turn.

    A request is under way once at a time, since it may own memory; there must be more of them
    than can be under way together.
    """

    def __init__(self, connect: Connect, exchanges: Sequence[Exchange], log: Log) -> None:
        self._connect = connect
        self._waiting = deque(exchanges)
        self._log = log
        self._poller = select.epoll() if hasattr(select, "epoll") else None
        self._plain = select.poll() if self._poller is None else None
        self._channels: dict[int, Channel] = {}
        self._listens: dict[int, int] = {}
        self._idle: list[Channel] = []
        self._backlog: deque[float] = deque()
        self._arrivals: Arrivals | None = None
        self._next = _FOREVER
        self._started = 0.0
        self._most = 0
        self._draining = False

    # ---- loops
    def closed(self, channels: int) -> None:
        """From now on every channel is kept busy; waiting channels start at once."""
        self._resize(channels)
        for channel in list(self._channels.values()):
            self._occupy(channel)

    def open(self, arrivals: Arrivals, channels: int, at_most: int) -> None:
        """From now on requests are due as `arrivals` says; a late one may open a channel more."""
        self._resize(channels)
        self._most = at_most
        self._arrivals = arrivals
        self._started = time.perf_counter()
        self._next = self._started + arrivals.next()
        self._idle = [channel for channel in self._channels.values() if not channel.busy]

    def run(self, until: float) -> None:
        """Go on until a moment of `perf_counter`."""
        while (now := time.perf_counter()) < until:
            if self._next <= now:
                self._start_due(now)
                now = time.perf_counter()
            wait = min(until, self._next) - now
            self._poll(0.0 if wait < _SPIN_S else min(wait - _SPIN_S / 2, _POLL_S))

    def drain(self, timeout_s: float) -> int:
        """Send nothing new and wait for the answers; how many did not come is returned."""
        self._arrivals, self._next, self._most = None, _FOREVER, 0
        self._draining = True
        until = time.perf_counter() + timeout_s
        while self._under_way() and time.perf_counter() < until:
            self._send_backlog()
            self._poll(_POLL_S)
        lost = self._under_way()
        now = time.perf_counter()
        for due in self._backlog:
            self._log.add(due, now, Verdict.LOST, "")
        for _ in range(lost - len(self._backlog)):
            self._log.add(now - timeout_s, now, Verdict.LOST, "")
        if lost:
            self._log.texts[f"no answer within {timeout_s:g} s"] += lost
        self._backlog.clear()
        return lost

    def close(self) -> None:
        """Close all channels."""
        for channel in list(self._channels.values()):
            self._forget(channel)
        if self._poller is not None:
            self._poller.close()

    # ---- steps
    def _under_way(self) -> int:
        return len(self._backlog) + sum(channel.busy for channel in self._channels.values())

    def _finished(self, exchange: Exchange, due: float, verdict: Verdict, text: str) -> None:
        self._log.add(due, time.perf_counter(), verdict, exchange.label)
        if text:
            self._log.texts[text] += 1
        self._waiting.append(exchange)

    def _poll(self, timeout_s: float) -> None:
        if self._poller is not None:
            events = self._poller.poll(timeout_s)
        else:
            assert self._plain is not None
            events = self._plain.poll(timeout_s * 1000)
        for number, mask in events:
            channel = self._channels.get(number)
            if channel is None:
                continue
            if mask & select.POLLOUT:
                channel.resume()
            if mask & ~select.POLLOUT:
                channel.receive()
            if channel.broken or not (channel.streams or channel.busy):
                channel = self._replace(channel)
            self._occupy(channel)

    def _occupy(self, channel: Channel) -> None:
        """Give a channel what it has room for."""
        if self._draining:
            if channel not in self._idle:
                self._idle.append(channel)
        elif self._arrivals is None:
            while channel.busy < channel.streams:
                channel.start(self._waiting.popleft(), time.perf_counter())
        else:
            while self._backlog and channel.busy < channel.streams:
                channel.start(self._waiting.popleft(), self._backlog.popleft())
            if channel.busy < channel.streams and channel not in self._idle:
                self._idle.append(channel)
        self._listen(channel)

    def _start_due(self, now: float) -> None:
        arrivals = self._arrivals
        assert arrivals is not None
        while self._next <= now:
            self._backlog.append(self._next)
            self._next = self._started + arrivals.next()
        self._send_backlog()

    def _send_backlog(self) -> None:
        while self._backlog:
            channel = self._take_idle()
            if channel is None:
                return
            channel.start(self._waiting.popleft(), self._backlog.popleft())
            if channel.busy < channel.streams:
                self._idle.append(channel)
            self._listen(channel)

    def _take_idle(self) -> Channel | None:
        while self._idle:
            channel = self._idle.pop()
            if not channel.broken and channel.busy < channel.streams:
                return channel
        return self._add() if len(self._channels) < self._most else None

    # ---- channels
    def _resize(self, channels: int) -> None:
        while len(self._channels) < channels:
            self._add()

    def _add(self) -> Channel:
        for attempt in range(_RETRIES):
            try:
                channel = self._connect(self._finished)
                break
            except Unavailable:
                if attempt == _RETRIES - 1 or not self._channels:
                    raise
                time.sleep(_RETRY_S)
        else:
            raise AssertionError
        number = channel.fileno()
        self._channels[number] = channel
        self._listens[number] = select.POLLIN
        self._active().register(number, select.POLLIN)
        self._listen(channel)
        return channel

    def _replace(self, channel: Channel) -> Channel:
        self._forget(channel)
        return self._add()

    def _forget(self, channel: Channel) -> None:
        number = channel.fileno()
        self._active().unregister(number)
        del self._channels[number], self._listens[number]
        if channel in self._idle:
            self._idle.remove(channel)
        channel.close()

    def _listen(self, channel: Channel) -> None:
        """Ask to be told of room to write only while there is something to write."""
        number = channel.fileno()
        wanted = select.POLLIN | select.POLLOUT if channel.blocked else select.POLLIN
        if self._listens[number] != wanted:
            self._listens[number] = wanted
            self._active().modify(number, wanted)

    def _active(self) -> _Poller:
        poller = self._poller or self._plain
        assert poller is not None
        return poller
