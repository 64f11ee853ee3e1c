"""The driver counts every request once and says truly what came of it."""

import threading
import time
from collections import Counter

import pytest

from tests.bench.load.scripted import answer, scripted
from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Exchange, Log, Verdict, Wrong
from tuili.bench.load.http_channel import HttpChannel

GOOD, BAD = answer(b"yes"), answer(b"no")


def exchange(target):
    def judge(headers, body):
        if body != b"yes":
            raise Wrong(f"said {body!r}")

    return Exchange(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", judge)


def load(target, channels=1, count=40):
    """A closed loop until so many requests have ended."""
    log = Log()
    exchanges = [exchange(target) for _ in range(channels + 1)]
    driver = Driver(lambda finished: HttpChannel(target, finished), exchanges, log)
    driver.closed(channels)
    until = time.perf_counter() + 30
    while len(log.done) < count and time.perf_counter() < until:
        driver.run(time.perf_counter() + 0.01)
    driver.drain(10.0)
    driver.close()
    return log


@pytest.mark.parametrize(
    ("special", "verdict"),
    [
        (BAD, Verdict.WRONG),
        (answer(b"busy", "503 Service Unavailable"), Verdict.REFUSED),
        (None, Verdict.LOST),
        (b"HTTP/1.1 200 OK\r\n\r\nyes", Verdict.LOST),
        (answer(b"yes", fields="Date: today\r\n"), Verdict.GOOD),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n2\r\nes\r\n0\r\n\r\n",
            Verdict.GOOD,
        ),
    ],
    ids=["wrong", "refused", "cut", "endless", "other-head", "chunked"],
)
def test_one_odd_answer_among_good_ones_is_counted_once(special, verdict):
    with scripted(lambda number, body: special if number == 5 else GOOD) as target:
        log = load(target)
    counts = Counter(log.verdicts)
    assert counts[Verdict.GOOD] > 20
    assert counts[verdict] == (1 if verdict else counts[Verdict.GOOD])
    assert sum(counts.values()) == len(log.due) == len(log.done)


def test_every_channel_gets_its_own_answers():
    with scripted(lambda number, body: GOOD) as target:
        log = load(target, channels=3)
    assert set(log.verdicts) == {Verdict.GOOD}


def test_a_stall_counts_against_every_request_that_was_due_meanwhile():
    def script(number, body):
        if number == 10:
            time.sleep(0.2)
        return GOOD

    class Metronome:
        count = 0

        def next(self):
            self.count += 1
            return self.count / 200

    with scripted(script) as target:
        log = Log()
        exchanges = [exchange(target) for _ in range(4)]
        driver = Driver(lambda finished: HttpChannel(target, finished), exchanges, log)
        start = time.perf_counter()
        driver.open(Metronome(), 1, 1)
        driver.run(start + 0.5)
        driver.drain(10.0)
        driver.close()
    # 40 requests were due during the stall: half of those waited longer than 100 ms.
    assert sum(done - due > 0.1 for due, done in zip(log.due, log.done, strict=True)) >= 18


def test_what_is_never_answered_is_lost_not_forgotten():
    stalled = threading.Event()

    def script(number, body):
        if number == 3:
            stalled.wait(20)
        return GOOD

    with scripted(script) as target:
        log = Log()
        driver = Driver(lambda f: HttpChannel(target, f), [exchange(target) for _ in range(4)], log)
        driver.closed(1)
        until = time.perf_counter() + 30
        while len(log.done) < 3 and time.perf_counter() < until:
            driver.run(time.perf_counter() + 0.01)
        assert driver.drain(0.1) == 1
        driver.close()
        stalled.set()
    assert Counter(log.verdicts)[Verdict.LOST] == 1
