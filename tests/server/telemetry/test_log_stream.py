"""A log that nobody reads."""

import logging
import os

import pytest

from tuili.server.telemetry import log_stream
from tuili.server.telemetry.log_stream import LogStream


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def logger_of(writing):
    found = logging.getLogger("tuili.test")
    found.propagate, found.handlers = False, [LogStream(writing)]
    return found


def lines_until(reading, wanted):
    found = b""
    while wanted not in found:
        piece = os.read(reading, 1 << 16)
        assert piece, found[-200:]
        found += piece
    return found.decode().splitlines()


def test_lines_that_the_stream_takes_are_written_at_once(pipe):
    reading, writing = pipe
    logger_of(writing).warning("one %s", "ä")
    assert os.read(reading, 100) == "one ä\n".encode()


def test_a_pipe_that_nobody_reads_stops_nobody_and_keeps_the_order(pipe):
    reading, writing = pipe
    logger = logger_of(writing)
    for number in range(5000):
        logger.warning("%d %s", number, "x" * 100)
    logger.warning("end")
    found = lines_until(reading, b"end\n")
    assert [int(line.partition(" ")[0]) for line in found[:-1]] == list(range(5000))


def test_a_line_longer_than_the_pipe_comes_whole(pipe):
    reading, writing = pipe
    logger_of(writing).warning("x" * 300_000 + " end")
    assert [len(line) for line in lines_until(reading, b"end\n")] == [300_004]


def test_lines_too_many_are_counted(pipe, monkeypatch):
    monkeypatch.setattr(log_stream, "_MOST_WAITING", 10)
    reading, writing = pipe
    logger = logger_of(writing)
    for number in range(3000):
        logger.warning("%d %s", number, "x" * 100)
    text, told, seen = b"", 0, 0
    while told + seen < 3000:
        text += os.read(reading, 1 << 16)
        lines = text.decode().splitlines()[: text.count(b"\n")]
        lost = [line for line in lines if line.endswith("lost: nobody read those before them")]
        told, seen = sum(int(line.partition(" ")[0]) for line in lost), len(lines) - len(lost)
    assert (told + seen, told > 0) == (3000, True)


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    logger_of(writing).warning("one")


def test_a_record_that_cannot_be_formatted_is_told(pipe):
    reading, writing = pipe
    logger_of(writing).warning("%d", "text")
    assert b"tuili.test: a record cannot be formatted: TypeError" in os.read(reading, 1000)
