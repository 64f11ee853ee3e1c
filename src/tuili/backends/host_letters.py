"""Messages that a socket does not take in one piece: what is longer lies in shared memory.

A SEQPACKET socket bounds a message by its buffer, and what a request says beside its tensors (its
parameters, a batch of a thousand requests, the text of an error) is bounded by nothing. Orders and
their answers have the memory of their slot, behind its tensors; what travels with descriptors has a
memfd more.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from tuili.backends.host_messages import (
    MAX_MESSAGE,
    Done,
    DoneEach,
    Run,
    SlotMemory,
    Spilled,
    Tensor,
)

encode: Final = msgspec.msgpack.Encoder().encode
# A byte that begins no MessagePack: the message is in the last descriptor that comes along.
_ELSEWHERE: Final = b"\xc1"
_DIGITS: Final = 16  # what a message may grow by when its capacity does
_MAX_TEXT: Final = 16 << 10


def laid(message: Run | Done | DoneEach, tensors: Sequence[Tensor], memory: SlotMemory) -> bytes:
    """What to send for a message about a slot; one that is too long goes behind its tensors."""
    raw = encode(message)
    if len(raw) <= MAX_MESSAGE:
        return raw
    start = max((each.offset + each.size for each in tensors), default=0)
    memory.fit(start + len(raw) + _DIGITS)
    message.capacity = memory.capacity
    raw = encode(message)
    memory.put(start, raw)
    return encode(Spilled(message.slot, memory.capacity, start, len(raw)))


def send(to: socket.socket, message: object, descriptor: int = -1) -> None:
    """Send a message and a descriptor, which is closed here; a side that is gone raises OSError."""
    raw, descriptors = letter(message, descriptor)
    try:
        socket.send_fds(to, [raw], descriptors)
    finally:
        let_go(descriptors)


def letter(message: object, descriptor: int = -1) -> tuple[bytes, Sequence[int]]:
    """What to send for a message, and the descriptors that go with it, which are the caller's."""
    descriptors = [descriptor] if descriptor >= 0 else []
    try:
        raw = encode(message)
        if len(raw) <= MAX_MESSAGE:
            return raw, descriptors
        descriptors.append(_written(raw))
    except BaseException:
        let_go(descriptors)
        raise
    return _ELSEWHERE, descriptors


def let_go(descriptors: Sequence[int]) -> None:
    """The other side has them, or does not need them."""
    for each in descriptors:
        os.close(each)


def opened(raw: bytes, descriptors: Sequence[int]) -> bytes:
    """The message that came, wherever it lies; the descriptors stay open."""
    if raw != _ELSEWHERE or not descriptors:
        return raw
    size = os.fstat(descriptors[-1]).st_size
    with mmap.mmap(descriptors[-1], size, prot=mmap.PROT_READ) as memory:
        return memory[:size]


def text_of(error: BaseException | str) -> str:
    """What an error says, as it can be sent: bounded, and without halves of characters.

    Names of files that are not UTF-8 have such halves (`os.fsdecode`).
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of a model's own
        text = f"a {type(error).__name__} that cannot be printed"
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + "..."
    with suppress(UnicodeEncodeError):
        text.encode()
        return text
    return text.encode(errors="backslashreplace").decode()


def _written(raw: bytes) -> int:
    descriptor = os.memfd_create("tuili_message")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(raw)
    return descriptor
