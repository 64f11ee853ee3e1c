"""A state machine over submits, answers, commits, full disks, crashes, restarts, cancels and time.

Whatever happens in whatever order: a job that was answered with 202 is never lost, never answered
with another's answer, and its answer does not go away before its time.
"""

import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.server.fake_clock import FakeClock, settle
from tests.server.fake_dataplane import FakeDataPlane
from tests.server.http.wire import Wire, request
from tuili.server.http.application import Application
from tuili.server.http.limits import HttpLimits
from tuili.server.jobs.database import Database
from tuili.server.jobs.journal import Disk
from tuili.server.scheduling.jobs import KEEP_S
from tuili.server.scheduling.replay import ReplayLimits

# What happens right after: nothing, or a commit on a disk with and without room.
THEN = st.sampled_from(["", "commit", "full"])


class Stepped(Disk):
    """A journal whose thread is the test."""

    def step(self):
        works = []
        while not self._work.empty():
            works.append(self._work.get())
        self.work(works)

    def _tell(self, calls):
        for call in calls:
            call()


class Receiver:
    """Webhooks whose receiver takes an answer when the test says so."""

    def __init__(self, posted):
        self.posted = posted
        self.waiting = []

    def check(self, url):
        return url

    def post(self, url, body, headers, over):
        self.waiting.append((headers["Tuili-Job"], json.loads(body), over))

    def take(self):
        """Have the oldest answer that waits, and say so."""
        id_, answer, over = self.waiting.pop(0)
        self.posted.setdefault(id_, []).append(answer)
        over()


class Job:
    def __init__(self, value, url):
        self.value = value
        self.url = url
        self.cancelled = self.may_be_cancelled = self.seen = self.given_up = False
        self.answered_at = None
        self.crashes = 0


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.clock.__enter__()
        self.real_time, time.time = time.time, lambda: self.clock.now + 1e9
        self.loop = asyncio.new_event_loop()
        self.jobs = {}
        self.keys = {}
        self.posted = {}
        self.values = 0
        self.shaky = False  # whether an answer may have been told that is not written

    def do(self, function):
        """Call it on the loop, and let that settle."""

        async def call():
            found = function()
            await settle(8)
            return found

        return self.loop.run_until_complete(call())

    @initialize()
    def begin(self):
        self.do(self.start)

    def start(self):
        self.database = Database(self.folder)
        self.full = False
        apply = self.database.apply

        def applied(changes):
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            apply(changes)

        self.database.apply = applied
        self.journal = Stepped(self.database, self.loop)
        self.dataplane = FakeDataPlane()
        self.receiver = Receiver(self.posted)
        self.application = Application(
            self.dataplane, HttpLimits(), webhooks=self.receiver, journal=self.journal
        )
        self.application.jobs.restore(self.database.left(time.time(), KEEP_S))
        self.application.jobs.resume()
        self.waiting = []

    def ask(self, method, path, body=b"", headers=None):
        wire = Wire(dataplane=self.dataplane, application=self.application)
        self.do(lambda: wire.feed(request(method, path, body, headers)))
        return wire

    def result(self, id_):
        (answer,) = self.ask("GET", f"/v2/jobs/{id_}/result").answers()
        return answer

    # ---- what happens
    @rule(key=st.sampled_from(["", "k", "k"]), hooked=st.booleans(), then=THEN)
    def submit(self, key, hooked, then):
        self.values += 1
        tensor = {"name": "INPUT", "datatype": "FP32", "shape": [1], "data": [self.values]}
        headers = {"Idempotency-Key": key} if key else {}
        headers |= {"Tuili-Webhook": "http://hook"} if hooked else {}
        before = self.keys.get(key)
        kept = before is not None and self.ask("GET", f"/v2/jobs/{before}").status == 200
        wire = self.ask("POST", "/v2/models/held/jobs", {"inputs": [tensor]}, headers)
        self.waiting.append((wire, self.values, key, hooked, before if kept else None))
        self.hear()
        self.go_on(then)

    def go_on(self, then):
        if then == "commit":
            self.commit()
        elif then == "full":
            self.commit_on_a_full_disk()

    def hear(self):
        """Take note of submits that are answered."""
        for each in list(self.waiting):
            wire, value, key, hooked, before = each
            for answer in wire.answers():
                self.waiting.remove(each)
                if answer.status == 503:
                    assert "cannot be written down: database or disk is full" in answer.error
                    continue
                assert answer.status == 202
                id_ = answer.json["id"]
                assert before in (None, id_)
                known = self.jobs.setdefault(id_, Job(value, hooked))
                assert known.value == value or key
                if key:
                    self.keys[key] = id_

    @rule()
    def commit(self):
        self.do(self.journal._flush)
        self.do(self.journal.step)
        self.hear()

    @rule()
    def commit_on_a_full_disk(self):
        self.full = True
        self.commit()
        self.full = False
        self.shaky = True

    @precondition(lambda self: self.dataplane.held)
    @rule(at=st.integers(0, 5), then=THEN)
    def answer(self, at, then=""):
        held = self.dataplane.held
        ticket, asked, reply = held.pop(at % len(held))
        if ticket.cancelled:
            return
        value = asked.inputs[0].data[0]
        for job in self.jobs.values():
            if job.value == value:
                job.answered_at = self.clock.now
        self.do(lambda: reply(self.dataplane._echo(asked)))
        self.go_on(then)

    @precondition(lambda self: self.jobs)
    @rule(at=st.integers(0, 50))
    def cancel(self, at):
        id_ = list(self.jobs)[at % len(self.jobs)]
        job = self.jobs[id_]
        job.may_be_cancelled = True
        wire = self.ask("DELETE", f"/v2/jobs/{id_}")
        self.commit()
        (answer,) = wire.answers()
        job.cancelled = job.cancelled or answer.status == 200

    @precondition(lambda self: self.receiver.waiting)
    @rule()
    def receive(self):
        self.do(self.receiver.take)

    @rule(seconds=st.sampled_from([1.0, KEEP_S / 2, KEEP_S]))
    def wait(self, seconds):
        self.clock.advance(seconds)
        self.do(lambda: None)

    @rule()
    def crash(self):
        self.database._connection.close()
        os.close(self.database._claim)
        for job in self.jobs.values():
            job.crashes += 1
        self.do(self.start)

    @rule()
    def restart(self):
        self.application.jobs.stop()
        self.do(self.journal._flush)
        self.do(self.journal.step)
        self.hear()
        self.database.close()
        self.do(self.start)

    # ---- what must hold
    @invariant()
    def each_answer_is_its_own_and_stays(self):
        for id_, job in self.jobs.items():
            found = self.result(id_)
            if found.status == 200:
                assert found.json["outputs"][0]["data"] == [job.value]
                assert not job.cancelled
                job.seen = True
            elif found.status == 202:
                assert not job.cancelled
                assert self.shaky or not job.seen
            elif found.status == 500:
                assert "does not try again" in found.error
                assert job.crashes >= ReplayLimits().hopeless
                job.given_up = True
                job.answered_at = job.answered_at or self.clock.now
            else:
                assert found.status == 404
                at = job.answered_at
                assert job.may_be_cancelled or (at and self.clock.now >= at + KEEP_S), id_

    def teardown(self):
        try:
            self.end()
        finally:
            self.crash_quietly()

    def end(self):
        """After one more crash all that was promised comes true."""
        self.crash()
        while self.is_busy():
            self.commit()
            if self.dataplane.held:
                self.answer(0)
        self.commit()
        while self.receiver.waiting:
            self.receive()
        self.each_answer_is_its_own_and_stays()
        for id_, job in self.jobs.items():
            assert job.may_be_cancelled or self.result(id_).status != 202
            posted = self.posted.get(id_, [])
            assert all(self.is_for(job, each) for each in posted)
            assert posted or job.may_be_cancelled or not job.url

    def is_for(self, job, posted):
        if "error" in posted:
            return job.given_up and "does not try again" in posted["error"]
        return posted["outputs"][0]["data"] == [job.value]

    def is_busy(self):
        journal, replay = self.journal, self.application.jobs._replay
        return self.dataplane.held or replay._tasks or journal._gathered or journal._work.qsize()

    def crash_quietly(self):
        self.database._connection.close()
        os.close(self.database._claim)
        self.loop.close()
        self.clock.__exit__()
        time.time = self.real_time
        shutil.rmtree(self.folder)


TestJobs = Machine.TestCase
TestJobs.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
