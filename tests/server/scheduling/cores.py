"""A model on a machine of many cores, simulated: runs share them as the thread pool does."""

from dataclasses import dataclass, field

from tests.server.scheduling.simulation import Simulation
from tuili.server.scheduling.overlap import Overlap
from tuili.server.scheduling.policy import BatchPolicy


@dataclass
class Job:
    batch: list
    left: float  # seconds of one core
    threads: int
    run: object = None
    started: float = 0.0


class Fixed(Overlap):
    """So many runs at once, whatever they take."""

    def __init__(self, most, cores, level):
        super().__init__(most, cores)
        self._level = level

    at_once = property(lambda self: self._level)

    def _choose(self):
        pass

    def _relieves(self, head, now):
        return False


@dataclass
class Machine:
    """`speed(threads)` of a run that has as many cores; one core's is 1."""

    cores: int
    serial: float = 0.0  # the share of a run that does not scale
    jobs: list = field(default_factory=list)

    def speed(self, threads):
        return 1 / (self.serial + (1 - self.serial) / threads)

    def threads_for_one_more(self):
        busy = sum(job.threads for job in self.jobs)
        room = self.cores - busy - 1
        share = self.cores // (len(self.jobs) + 1) - 1
        return 1 + max(min(room, share), 0)

    def rates(self):
        """Of all jobs: where there are more threads than cores, each has its part of one."""
        threads = sum(job.threads for job in self.jobs)
        part = min(self.cores / threads, 1.0) if threads else 1.0
        return [self.speed(job.threads) * part for job in self.jobs]


class Serving(Simulation):
    """Closed and open loops against one model, with `overlap` between queue and machine.

    `work_s(rows)` is a run on one core; with `loop_s` the server needs so long between two runs.
    """

    def __init__(self, machine, work_s, overlap, *, most_rows=64, loop_s=0.0, seed=0):
        super().__init__(BatchPolicy(most_rows, merge=most_rows > 0), None, seed=seed)
        self.queue._most_rows = lambda item: overlap.rows_worth(16, most_rows)
        self.machine, self.work_s, self.overlap, self.loop_s = machine, work_s, overlap, loop_s
        self.moved, self.epoch = 0.0, 0

    def flush(self):
        self.move()
        changed = False
        while len(self.queue) and self.overlap.allows(
            len(self.queue), 16 * self.queue.head().rows, self.now
        ):
            batch = self.queue.take(self.now)
            rows = sum(item.rows for item in batch)
            self.batches.append(rows)
            run = self.overlap.started(16 * rows, len(batch), self.now, waiting=len(self.queue))
            threads = min(self.machine.threads_for_one_more(), run.threads)
            job = Job(batch, self.work_s(rows), threads, run, self.now)
            self.machine.jobs.append(job)
            changed = True
        if changed:
            self.plan()

    def move(self):
        """Let all jobs work until now."""
        for job, rate in zip(self.machine.jobs, self.machine.rates(), strict=True):
            job.left -= rate * (self.now - self.moved)
        self.moved = self.now

    def plan(self):
        """The next end of a job, as things stand."""
        self.epoch += 1
        ends = [
            (self.now + max(job.left, 0.0) / rate, job)
            for job, rate in zip(self.machine.jobs, self.machine.rates(), strict=True)
        ]
        if ends:
            moment, job = min(ends, key=lambda end: end[0])
            self.at(moment, self.end, job, self.epoch)

    def end(self, job, epoch):
        if epoch != self.epoch:
            return
        self.move()
        self.machine.jobs.remove(job)
        self.plan()
        self.at(self.now + self.loop_s, self.answer, job)

    def answer(self, job):
        self.overlap.ended(job.run, self.now, waiting=len(self.queue))
        self.free -= 1
        self.finish(job.batch, self.now - job.started)
