"""Calls of a model host to its server, when the server goes."""

from __future__ import annotations

import mmap
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from tuili.backends.host_calls import Call, Called, Caller, pack, receive_call, send, unpack


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


@pytest.fixture
def calling():
    """The server's end of a call, and how to wait for its answers."""
    server, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host, server:
        caller = Caller(host)
        caller.start()
        yield server, caller.call(Call(0, "stream", "other"), {}, None)
        # Its thread is told before the socket that it reads is closed under it.
        server.close()
        assert caller.call(Call(0, "infer", "other"), {})()[0].text == "the server is gone"


def answer(server, number):
    """Answer the first call with a tensor of that number."""
    laid, capacity, descriptor, _ = pack({"y": np.full(20_000, number, np.float32)})
    send(server, Called(1, False, tensors=laid, capacity=capacity), descriptor)


def descriptors():
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ahead", [1, 200])
def test_answers_that_a_model_holds_take_few_descriptors(calling, ahead):
    server, wait = calling
    before, held, most = descriptors(), [], 0
    for number in range(200 + ahead):
        if number < 200:
            answer(server, number)
        if number >= ahead:
            held.append(wait())
            most = max(most, descriptors() - before)
    assert [int(each["y"][0]) for _, each in held] == list(range(200))
    assert most < 40


@pytest.mark.timeout(60)
def test_an_answer_for_which_there_is_no_memory_is_an_error_and_not_the_last_one(
    calling, monkeypatch
):
    server, wait = calling
    mapped, refused = mmap.mmap, []

    def none_left(*given):
        if not refused:
            refused.append(given)
            raise OSError(24, "Too many open files")
        return mapped(*given)

    laid, capacity, descriptor, _ = pack({"y": np.zeros(20_000, np.float32)})
    monkeypatch.setattr(mmap, "mmap", none_left)
    send(server, Called(1, False, tensors=laid, capacity=capacity), descriptor)
    called, tensors = wait()
    assert (called.kind, tensors) == ("InternalError", {})
    assert "Too many open files" in called.text
    answer(server, 7)
    assert wait()[1]["y"][0] == 7


def test_a_call_for_which_there_is_no_memory_is_known_all_the_same():
    server, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, host:
        laid, capacity, descriptor, _ = pack({"x": np.zeros(20_000, np.float32)})
        call = Call(3, "infer", "other", tensors=laid, capacity=capacity)
        # As if this process could take no more descriptors.
        os.close(descriptor)
        send(host, call)
        received, error = receive_call(server)
        assert (received.number, str(error)) == (
            3,
            "a message with tensors came without their memory",
        )


@pytest.mark.parametrize(
    ("arrays", "has_file"),
    [
        ({"x": np.arange(6, dtype=np.int64).reshape(2, 3), "y": np.float32([0.5])}, False),
        ({"x": np.zeros((0, 4), np.float32)}, False),
        ({"x": np.array(["a", "\u00e4", ""], object)}, False),
        ({"x": np.zeros(1 << 12, np.float32)}, False),
        ({"x": np.ones((1 << 12) + 1, np.float32)}, True),
        ({"x": np.array(["a" * (1 << 14)], object)}, True),
    ],
)
def test_what_is_small_goes_in_the_message_and_is_the_same_there(arrays, has_file):
    laid, capacity, descriptor, enclosed = pack(arrays)
    assert (descriptor >= 0, enclosed == b"") == (has_file, has_file)
    found = unpack(laid, capacity, [descriptor] if has_file else [], enclosed)
    if has_file:
        os.close(descriptor)
    for name, array in arrays.items():
        told = [text.encode() for text in array] if array.dtype == object else array.tolist()
        assert (found[name].tolist(), found[name].shape) == (told, array.shape)
        assert found[name].flags.writeable
