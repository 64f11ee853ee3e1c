"""One model behind a queue, simulated: clients, instances and time, all of them made up."""

import heapq
import random
from dataclasses import dataclass
from itertools import count

from tuili.errors import Overloaded
from tuili.server.scheduling.queue import RequestQueue


@dataclass
class Request:
    client: int
    arrived: float
    rows: int = 1
    lane: object = None
    level: int = 0
    expires: float = 0.0
    queued: bool = False


class Simulation:
    """`run_s(rows)` is what a batch takes; closed-loop clients think `think_s` between requests."""

    def __init__(self, policy, run_s, *, pace=None, instances=1, seed=0):
        self.queue = RequestQueue(policy, pace=pace)
        self.pace, self.run_s = pace, run_s
        self.free = instances
        self.random = random.Random(seed)
        self.events, self.order = [], count()
        self.latencies, self.batches, self.refused = [], [], 0
        self.now = 0.0
        self.think_s = 0.0
        self.closed = False

    def at(self, moment, call, *args):
        heapq.heappush(self.events, (moment, next(self.order), call, args))

    def closed_loop(self, clients, think_s):
        self.closed, self.think_s = True, think_s
        for client in range(clients):
            self.at(self.random.random() * think_s, self.arrive, client)
        return self

    def open_loop(self, rate, seconds):
        moment = 0.0
        while moment < seconds:
            moment += self.random.expovariate(rate)
            self.at(moment, self.arrive, 0)
        return self

    def arrive(self, client):
        try:
            self.queue.push(Request(client, self.now))
        except Overloaded:
            self.refused += 1

    def flush(self):
        self.queue.expire(self.now)
        while self.free:
            batch = self.queue.take(self.now)
            if not batch:
                break
            self.free -= 1
            self.batches.append(len(batch))
            if self.pace:
                self.pace.started(len(batch))
            run_s = self.run_s(sum(item.rows for item in batch))
            self.at(self.now + run_s, self.finish, batch, run_s)
        wake = self.queue.wake_at(self.now)
        if wake is not None and self.free:
            self.at(wake, lambda: None)

    def finish(self, batch, run_s):
        self.free += 1
        latencies = [self.now - item.arrived for item in batch]
        self.latencies += latencies
        if self.pace:
            waiting = len(self.queue)
            self.pace.answered(len(batch), sum(latencies), run_s, self.now, waiting)
        if self.closed:
            for item in batch:
                think = self.think_s * (0.5 + self.random.random())
                self.at(self.now + think, self.arrive, item.client)

    def run(self, seconds):
        while self.events and self.events[0][0] <= seconds:
            self.now, _, call, args = heapq.heappop(self.events)
            call(*args)
            if not self.events or self.events[0][0] > self.now:
                self.flush()
        return self
