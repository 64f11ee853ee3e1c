"""A version that cannot be served leaves no process behind."""

import asyncio
import threading

import pytest

from tests.server.test_dataplane import plane
from tests.server.test_elastic import servable
from tests.server.test_hosts import CONFIG, add, parameter
from tests.server.test_servable import Doubler
from tuili.errors import InvalidModel
from tuili.server.execution.hosts import Host
from tuili.server.execution.instances import Instance
from tuili.server.loading.elastic import Elastic
from tuili.server.scheduling.scaling import Elasticity, Scaler

UNHEARD = "tuili.server.loading.launching.rehearse"


@pytest.fixture
def started(monkeypatch):
    """The hosts that were started."""
    found = []
    start = Host.start

    def noted(host):
        found.append(host)
        start(host)

    monkeypatch.setattr(Host, "start", noted)
    return found


def load(repository):
    async def scenario():
        dataplane = plane(repository)
        await dataplane.start()
        try:
            return dataplane.repository.failures()
        finally:
            await dataplane.close(10)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (parameter("degrade_to", "m"), "names the model itself"),
        (parameter("max_instances", "3"), ""),
    ],
)
def test_terms_that_cannot_be_end_the_process_of_the_model(
    tmp_path, started, monkeypatch, more, why
):
    add(tmp_path, config=CONFIG + more)
    if not why:
        why = "no elastic instances today"
        monkeypatch.setattr(
            "tuili.server.loading.launching.Elastic", lambda *_: raises(InvalidModel(why))
        )
    assert why in load(tmp_path)["m"]
    assert started
    assert all(host._child.process.poll() is not None for host in started)


def test_a_number_that_is_none_is_refused_before_a_process_starts(tmp_path, started):
    add(tmp_path, config=CONFIG + parameter("max_rate", "fast"))
    assert "must be a number" in load(tmp_path)["m"]
    assert not started


def raises(error):
    raise error


def test_a_rehearsal_that_fails_badly_ends_the_process_of_the_model(tmp_path, started, monkeypatch):
    async def fails(live, folder, asked=None):
        raise RuntimeError("a bug")

    monkeypatch.setattr(UNHEARD, fails)
    add(tmp_path)
    assert "a bug" in load(tmp_path)["m"]
    assert all(host._child.process.poll() is not None for host in started)


class Closed(Doubler):
    def __init__(self):
        super().__init__()
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


def scaler():
    found = Scaler(Elasticity(1, 3, lead_s=5, patience_s=20), None)
    found.wanted = lambda *_: 2
    return found


def test_an_instance_that_comes_too_late_is_ended(tmp_path):
    async def scenario():
        served, late = servable([Doubler()]), Closed()
        begun, go_on = threading.Event(), threading.Event()

        def another(number):
            begun.set()
            go_on.wait(10)
            return [Instance(late, "late")], None

        elastic = Elastic(served, scaler(), another)
        growing = asyncio.ensure_future(elastic.tick(0.0, 0.0))
        assert await asyncio.to_thread(begun.wait, 10)
        growing.cancel()
        await asyncio.gather(growing, return_exceptions=True)
        go_on.set()
        assert await asyncio.to_thread(late.closed.wait, 10)
        assert elastic.instances == 1

    asyncio.run(scenario())


def test_an_instance_that_cannot_rehearse_is_ended_and_others_may_come(tmp_path):
    async def scenario():
        served, bad = servable([Doubler()]), Closed()

        async def fails(runners):
            raise RuntimeError("a bug")

        elastic = Elastic(served, scaler(), lambda _: ([Instance(bad, "bad")], None), None, fails)
        await elastic.tick(0.0, 0.0)
        assert await asyncio.to_thread(bad.closed.wait, 10)
        assert elastic.instances == 1

    asyncio.run(scenario())
