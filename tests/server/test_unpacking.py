"""What clients compressed is unpacked piece by piece."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tuili.errors import InvalidArgument, TooLarge
from tuili.server.unpackers import Unpackers
from tuili.server.unpacking import PIECE, Unpacking

SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + 7]
NOISE = random.Random(7).randbytes(max(SIZES))


def unpack(packed: bytes, most: int, claim: Callable[[int], None]) -> Any:
    unpacking = Unpacking(packed, 15, most, "it", TooLarge(f"more than {most} bytes"))
    return Unpackers().unpack(unpacking, claim, loop=None)


@pytest.mark.parametrize("source", [bytes(max(SIZES)), NOISE], ids=["zeros", "noise"])
@pytest.mark.parametrize("size", SIZES)
def test_all_is_unpacked_and_every_piece_but_the_first_claimed(source: bytes, size: int):
    claimed: list[int] = []
    found = unpack(zlib.compress(source[:size]), size, claimed.append)
    assert bytes(found) == source[:size]
    assert sum(claimed) == max(size - PIECE, 0)


@pytest.mark.parametrize("size", SIZES[1:])
def test_one_byte_above_the_limit_is_too_much(size: int):
    with pytest.raises(TooLarge, match=f"more than {size - 1} bytes"):
        unpack(zlib.compress(bytes(size)), size - 1, lambda _: None)


def test_a_bomb_is_unpacked_no_further_than_it_is_let():
    bomb, claimed = zlib.compress(bytes(1 << 26)), []

    def claim(size: int) -> None:
        claimed.append(size)
        if len(claimed) == 4:
            raise TooLarge("enough")

    with pytest.raises(TooLarge, match="enough"):
        unpack(bomb, 1 << 30, claim)
    assert claimed == [0, PIECE, PIECE, PIECE]


@pytest.mark.parametrize("size", [10, PIECE, 3 * PIECE])
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda data: data[:-1], "failed to decompress it: it ends too early"),
        (lambda data: data + b"x", "failed to decompress it: bytes after its end"),
        (lambda data: data + bytes(PIECE), "failed to decompress it: bytes after its end"),
        (lambda data: b"x" + data, "failed to decompress it: Error -3"),
    ],
)
def test_what_is_no_whole_stream_is_refused(size: int, spoil, text: str):
    with pytest.raises(InvalidArgument, match=text):
        unpack(spoil(zlib.compress(NOISE[:size])), 1 << 20, lambda _: None)
