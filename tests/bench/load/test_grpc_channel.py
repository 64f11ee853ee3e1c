"""The gRPC channel looks at every answer, whichever way it is read."""

import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Exchange, Log, Verdict, Wrong
from tuili.bench.load.grpc_channel import GrpcChannel
from tuili.bench.load.sockets import Target
from tuili.server.grpc import frames as h2


def answer(number, text=b"yes", code=0, window=False):
    """The frames of an answer, with those of another concern before them if so told."""
    message = len(text).to_bytes(5, "big") + text
    data = h2.frame_head(h2.DATA, 0, number, len(message)) + message
    before = h2.window_update_frame(0, 100) if window else b""
    return before + h2.open_frame(number) + data + h2.status_frame(number, code, "", True)


@contextmanager
def scripted(script):
    """A server that answers its n-th call with `script(n, stream)`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        client, _ = listener.accept()
        with client, client.makefile("rb") as file:
            file.read(len(h2.PREFACE))
            client.sendall(h2.settings_frame({}))
            count = 0
            while head := file.read(h2.FRAME_BYTES):
                high, low, kind, _, number = h2.FRAME_HEAD.unpack(head)
                file.read(high << 8 | low)
                if kind == h2.DATA:
                    client.sendall(script(count, number))
                    count += 1

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield Target("grpc", "127.0.0.1", listener.getsockname()[1])
    finally:
        listener.close()


def load(target, streams):
    """A closed loop until forty calls have ended."""
    log = Log()

    def judge(headers, body):
        if body != b"yes":
            raise Wrong(f"said {body!r}")

    exchanges = [Exchange(b"\0\0\0\0\2hi", judge) for _ in range(streams + 1)]
    driver = Driver(lambda finished: GrpcChannel(target, finished, streams), exchanges, log)
    driver.closed(1)
    until = time.perf_counter() + 30
    while len(log.done) < 40 and time.perf_counter() < until:
        driver.run(time.perf_counter() + 0.01)
    driver.drain(10.0)
    driver.close()
    return log


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(
    ("special", "verdict"),
    [
        ({"text": b"no!"}, Verdict.WRONG),
        ({"text": b"no"}, Verdict.WRONG),
        ({"code": 14}, Verdict.REFUSED),
        ({"window": True}, Verdict.GOOD),
    ],
    ids=["wrong", "wrong-size", "refused", "with-a-window"],
)
def test_one_odd_answer_among_good_ones_is_counted_once(special, verdict, streams):
    def script(count, number):
        return answer(number, **special) if count == 20 else answer(number)

    with scripted(script) as target:
        log = load(target, streams)
    counts = Counter(log.verdicts)
    assert counts[Verdict.GOOD] > 20
    assert counts[verdict] == (1 if verdict else counts[Verdict.GOOD])
    assert sum(counts.values()) == len(log.done)
