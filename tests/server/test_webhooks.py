"""Webhooks: which URLs may be posted to, and that an answer arrives in the end."""

import asyncio
import contextlib
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tuili.errors import InvalidArgument, Unsupported
from tuili.server.posting import post
from tuili.server.webhooks import Webhooks


@contextmanager
def receiver(*statuses):
    """A server that answers with these statuses, then 200; what it was sent."""
    got, left = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Tuili-Job"], body))
            status = left.pop(0) if left else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def raw_receiver(answer):
    """A port where `answer(connection)` is called with each connection, its request read."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    answer(connection, ended)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def drip(connection, ended):
    """Headers without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n"[:9])
    while not ended.wait(0.01):
        connection.sendall(b"0")


def say(answer):
    return lambda connection, ended: connection.sendall(answer)


def deliver(url, allowed, tries=3):
    async def scenario():
        webhooks = Webhooks(allowed, delays_s=[0.0] * tries)
        webhooks.post(webhooks.check(url), b"answer", {"Tuili-Job": "7"})
        await webhooks.settle()

    asyncio.run(scenario())


def test_an_answer_is_posted_once_when_it_is_taken():
    with receiver() as (url, got):
        deliver(url + "/done", [url])
    assert got == [("/done", "7", b"answer")]


def test_a_receiver_that_fails_is_tried_again():
    with receiver(500, 503) as (url, got):
        deliver(url + "/done", [url])
    assert len(got) == 3


def test_redirects_are_not_followed():
    with receiver(302) as (url, got):
        deliver(url + "/done", [url], tries=1)
    assert [path for path, _, _ in got] == ["/done"]


@pytest.mark.parametrize(
    ("receive", "cause"),
    [
        (drip, "did not answer within 0.2 s"),
        (lambda connection, ended: ended.wait(), "did not answer within 0.2 s"),
        (say(b""), "closed the connection without an answer"),
        (say(b"SSH-2.0-x\r\n"), "no HTTP"),
        (say(b"x" * 100_000), "limit"),
        (say(b"HTTP/1.1 413 Too Large\r\n\r\n"), "it answered 413 Too Large"),
        (say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n"), ""),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000), ""),
    ],
)
def test_a_receiver_may_answer_what_it_likes(receive, cause):
    with raw_receiver(receive) as url:
        found = asyncio.run(post(url, b"answer", {}, 0.2))
    assert cause in found if cause else not found


def test_answers_that_wait_for_receivers_take_bounded_memory(caplog):
    with receiver() as (url, got):

        async def scenario():
            webhooks = Webhooks([url], delays_s=[0.0], most_bytes=10)
            for body in (b"123456", b"7890123", b"4567"):
                webhooks.post(url, body, {})
            await webhooks.settle()
            webhooks.post(url, b"8901234567", {})
            await webhooks.settle()

        asyncio.run(scenario())
    assert sorted(body for _, _, body in got) == [b"123456", b"4567", b"8901234567"]
    assert "is not told" in caplog.text


def test_answers_for_a_receiver_that_is_dead_give_way_to_those_of_others(caplog):
    with receiver() as (url, got):
        dead = "http://127.0.0.1:9"

        async def scenario():
            webhooks = Webhooks([url, dead], delays_s=[0.0, 60.0], most_bytes=10)
            for at in range(6):
                webhooks.post(f"{dead}/{at}", b"12", {})
            for body in (b"abc", b"de"):
                webhooks.post(url, body, {})
            async with asyncio.timeout(10):
                while len(got) < 2:  # noqa: ASYNC110 - another thread's
                    await asyncio.sleep(0.01)
            assert caplog.text.count("is not told") == 1 + 3

        asyncio.run(scenario())
    assert sorted(body for _, _, body in got) == [b"abc", b"de"]
    told = [each for each in caplog.messages if "others need the room" in each]
    assert [each.split()[1] for each in told] == [f"{dead}/{at}" for at in (4, 3, 2)]
    stops = [each for each in caplog.messages if "the server stops" in each]
    assert len(stops) == 2, "what was given up before is told once"


def test_a_receiver_that_does_not_answer_holds_up_nobody_else():
    with raw_receiver(lambda connection, ended: ended.wait()) as slow, receiver() as (url, got):

        async def scenario():
            webhooks = Webhooks([slow, url], timeout_s=60.0)
            for _ in range(100):
                webhooks.post(slow, b"answer", {})
            webhooks.post(url, b"answer", {})
            async with asyncio.timeout(10):
                while not got:  # noqa: ASYNC110 - another thread's
                    await asyncio.sleep(0.01)

        asyncio.run(scenario())
    assert len(got) == 1


def test_a_server_that_stops_says_which_receivers_are_not_told(caplog):
    with receiver(503) as (url, got):

        async def scenario():
            Webhooks([url], delays_s=[0.0, 60.0]).post(url, b"answer", {})
            while not got:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.01)

        asyncio.run(scenario())
    assert f"webhook {url} is not told, as the server stops" in caplog.text


def test_giving_up_is_logged(caplog):
    deliver("http://127.0.0.1:9/x", ["http://127.0.0.1:9"], tries=2)
    assert "was tried 2 times" in caplog.text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://hooks/x", "is no http or https URL"),
        ("http://", "is no http or https URL"),
        ("file:///etc/passwd", "is no http or https URL"),
        ("http://hooks:80@evil/x", "is no http or https URL"),
        ("http://hooks.evil/x", "starts with none of the allowed"),
        ("http://hooks:8080/x", "starts with none of the allowed"),
        ("https://hooks/x", "starts with none of the allowed"),
        ("http://[hooks/x", "is no http or https URL"),
        ("http://hooks:99999/x", "is no http or https URL"),
        ("http://hooks/a b", "is no http or https URL"),
        ("http://hooks/\xe9", "is no http or https URL"),
        ("http://hooks/a\r\nX: y", "is no http or https URL"),
        ("http://hooks/below/../admin", "is no http or https URL"),
        ("http://hooks/below/%2e%2E/admin", "is no http or https URL"),
    ],
)
def test_other_urls_are_refused(url, text):
    with pytest.raises(InvalidArgument, match=text):
        Webhooks(["http://hooks"]).check(url)


@pytest.mark.parametrize("url", ["http://hooks", "http://hooks/", "http://hooks/a?b=c"])
def test_what_is_below_an_allowed_url_is_allowed(url):
    assert Webhooks(["http://hooks"]).check(url) == url


def test_none_is_allowed_by_default():
    with pytest.raises(Unsupported, match="webhooks are off"):
        Webhooks(()).check("http://hooks")
