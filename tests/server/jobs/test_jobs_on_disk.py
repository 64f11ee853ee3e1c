"""Jobs that are written down, over the wire: what the next server makes of what was left."""

import asyncio
import json
import time
from contextlib import contextmanager

import pytest

from tests.server.fake_clock import settle
from tests.server.fake_dataplane import FakeDataPlane
from tests.server.http.wire import Wire, request
from tests.server.jobs.test_database import crash
from tests.server.jobs.test_jobs_machine import Receiver, Stepped
from tuili.errors import InvalidArgument, Unavailable
from tuili.server.http.application import Application
from tuili.server.http.limits import HttpLimits
from tuili.server.jobs.changes import Accepted, Answer, Asked, Begun, Finished
from tuili.server.jobs.database import Database
from tuili.server.scheduling.jobs import KEEP_S, JobLimits

BODY = json.dumps(
    {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}
).encode()
HOOK = "http://hooks/x"


class Server:
    """One life of a server on a folder."""

    def __init__(self, folder):
        self.database = Database(folder)
        self.journal = Stepped(self.database, asyncio.get_running_loop())
        self.dataplane, self.receiver = FakeDataPlane(), Receiver({})
        self.application = Application(
            self.dataplane, HttpLimits(), webhooks=self.receiver, journal=self.journal
        )
        self.jobs = self.application.jobs
        self.jobs.restore(self.database.left(time.time(), KEEP_S))
        self.jobs.resume()

    async def commit(self):
        for _ in range(2):
            await settle(8)
            self.journal.step()

    async def ask(self, method, path, body=b"", headers=None):
        wire = Wire(dataplane=self.dataplane, application=self.application)
        wire.feed(request(method, path, body, headers))
        await self.commit()
        (answer,) = wire.answers()
        return answer

    async def submit(self, model="held", url=""):
        headers = {"Tuili-Webhook": url} if url else {}
        answer = await self.ask("POST", f"/v2/models/{model}/jobs", BODY, headers)
        return answer.json["id"]

    async def answer(self, answer=None):
        _, asked, reply = self.dataplane.held.pop()
        reply(answer or self.dataplane._echo(asked))
        await self.commit()


@contextmanager
def serving(folder):
    server = Server(folder)
    try:
        yield server
    finally:
        crash(server.database)


def left_in(folder, *changes):
    database = Database(folder)
    for change in changes:
        database.apply([change])
    crash(database)


def accepted(id_="a", model="held", url=""):
    return Accepted(id_, "", time.time(), Asked(model, "", None, url), BODY)


def test_a_job_that_ended_five_servers_fails(tmp_path):
    left_in(tmp_path, accepted(), *[Begun("a")] * 4)

    async def scenario():
        with serving(tmp_path) as server:
            await server.commit()
            assert not server.dataplane.held
            found = await server.ask("GET", "/v2/jobs/a/result")
            assert (found.status, "server ended 5 times" in found.error) == (500, True)

    asyncio.run(scenario())


def test_a_damaged_request_fails_in_words(tmp_path):
    left_in(tmp_path, accepted())
    database = Database(tmp_path)
    database._connection.execute("DELETE FROM pieces")
    crash(database)

    async def scenario():
        with serving(tmp_path) as server:
            await server.commit()
            found = await server.ask("GET", "/v2/jobs/a/result")
            assert f"its request is damaged: 0 of {len(BODY)} bytes" in found.error

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "state"),
    [(Unavailable("the model was unloaded"), "queued"), (InvalidArgument("no"), "failed")],
)
def test_whom_the_end_of_a_server_hits_the_next_one_answers(tmp_path, error, state):
    async def scenario():
        with serving(tmp_path) as server:
            id_ = await server.submit()
            server.jobs.stop()
            await server.answer(error)
        with serving(tmp_path) as server:
            await server.commit()
            assert (await server.ask("GET", f"/v2/jobs/{id_}")).json["state"] == state
            assert len(server.dataplane.held) == (state == "queued")

    asyncio.run(scenario())


def test_a_model_that_is_not_there_yet_is_waited_for(tmp_path):
    left_in(tmp_path, accepted(model="nope"))

    async def scenario():
        with serving(tmp_path) as server:
            await server.commit()
            assert len(server.dataplane.requests) == 1
            assert (await server.ask("GET", "/v2/jobs/a")).json["state"] == "queued"
            assert server.jobs._replay._timer is not None

    asyncio.run(scenario())


def test_an_answer_that_is_owed_is_posted_after_its_time_too(tmp_path):
    answer = Answer(200, "application/json", (), [b"{}"])
    ended = Finished("a", "done", time.time() - KEEP_S - 1, "", answer, owed=True)
    left_in(tmp_path, accepted(url=HOOK), ended)

    async def scenario():
        with serving(tmp_path) as server:
            assert (await server.ask("GET", "/v2/jobs/a")).status == 404
            server.receiver.take()
            await server.commit()
            assert server.receiver.posted == {"a": [{}]}
        with serving(tmp_path) as server:
            assert not server.receiver.waiting

    asyncio.run(scenario())


@pytest.mark.parametrize("taken", [True, False])
def test_an_answer_too_large_to_be_kept_is_made_again_unless_it_was_taken(tmp_path, taken):
    async def scenario():
        with serving(tmp_path) as server:
            server.jobs._store.limits = JobLimits(max_bytes=10)
            id_ = await server.submit(url=HOOK)
            await server.answer()
            told = await server.ask("GET", f"/v2/jobs/{id_}")
            assert "larger than the 10 bytes" in told.json["error"]
            if taken:
                server.receiver.take()
                await server.commit()
        with serving(tmp_path) as server:
            await server.commit()
            assert len(server.dataplane.held) == (not taken)

    asyncio.run(scenario())


def test_an_answer_too_large_to_be_kept_takes_no_room_on_the_disk(tmp_path):
    async def scenario():
        with serving(tmp_path) as server:
            server.jobs._store.limits = JobLimits(max_bytes=10)
            await server.submit()
            await server.answer()
            pieces = server.database._connection.execute("SELECT count(*) FROM pieces")
            assert pieces.fetchone() == (0,)

    asyncio.run(scenario())
