"""Repeat: a request that differs from the one before it on its connection in its tensors only.

Most requests of a client do. One comparison of bytes then takes the place of finding the head, the
route, the end of the JSON and what all that means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tuili.server.http.head import CHUNKED, Head

_MAX_BODY: Final = 16 << 10  # bytes; larger ones are not copied
_BLANK: Final = b"\r\n\r\n"


class Repeat(NamedTuple):
    """What stands before the tensors, and how long all of it is.

    `take` queues such a request by its tensors' bytes; false: the words mean something else by now.
    """

    words: bytes
    size: int
    head: Head
    take: Callable[[bytes], bool]

    def end(self, data: bytes, at: int) -> int:
        """Where such a request at `data[at:]` ends; 0 if there is none, or not all of it."""
        end = at + self.size
        return end if end <= len(data) and data.startswith(self.words, at) else 0


def is_repeatable(head: Head) -> bool:
    """Whether a request with this head may be one that is repeated."""
    if not head.block or head.content_encoding or head.content_length == CHUNKED:
        return False
    return head.content_length <= _MAX_BODY


def repeat_of(head: Head, text: bytes, take: Callable[[bytes], bool]) -> Repeat:
    """Of a request with this head, whose body begins with `text` and goes on with tensors."""
    before = head.block + _BLANK
    return Repeat(before + text, len(before) + head.content_length, head, take)
