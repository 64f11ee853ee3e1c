"""Webhooks: which URLs may be posted to, and that an answer arrives in the end."""

import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tuili.errors import InvalidArgument, Unsupported
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
