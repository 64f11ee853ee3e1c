"""Calls of a model host to its server, when the server goes."""

from __future__ import annotations

import socket

import pytest

from tuili.backends.host_calls import Call, Caller


@pytest.mark.timeout(20)
def test_a_call_ends_with_its_server():
    server, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host:
        caller = Caller(host)
        caller.start()
        wait = caller.call(Call(0, "infer", "other"), {})
        server.close()
        called, _ = wait()
        assert (called.final, called.kind) == (True, "Unavailable")
        again, _ = caller.call(Call(0, "infer", "other"), {})()
        assert again.text == "the server is gone"
