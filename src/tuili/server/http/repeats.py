"""Repeat: a request that differs from the last on its connection in its tensors and id only.

Most requests of a client do. One comparison of bytes then takes the place of finding the head, the
route, the end of the JSON and what all that means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tuili.server.execution.express import MOST_BYTES
from tuili.server.http.cut import id_place, is_plain_id
from tuili.server.http.head import CHUNKED, Head

_BLANK: Final = b"\r\n\r\n"


class Repeat(NamedTuple):
    """What stands before the tensors, and how long all of it is.

    `words` are all of that where there is no id, else those before its text; it is `id_bytes` long
    and has `behind` behind it. `take` queues such a request by its id and its tensors' bytes;
    false: the words mean something else by now.
    """

    words: bytes
    size: int
    head: Head
    take: Callable[[str, bytes], bool]
    id_bytes: int = 0
    behind: bytes = b""

    def find(self, data: bytes, at: int) -> tuple[int, str, bytes] | None:
        """Where such a request at `data[at:]` ends, its id and tensors; None if there is none."""
        end = at + self.size
        if end > len(data) or not data.startswith(self.words, at):
            return None
        at += len(self.words)
        if not self.id_bytes:
            return end, "", data[at:end]
        named, at = data[at : at + self.id_bytes], at + self.id_bytes
        if not data.startswith(self.behind, at) or not is_plain_id(named):
            return None
        return end, named.decode(), data[at + len(self.behind) : end]


def is_repeatable(head: Head) -> bool:
    """Whether a request with this head may be one that is repeated."""
    if not head.block or head.content_encoding or head.content_length == CHUNKED:
        return False
    return head.content_length <= MOST_BYTES  # what is larger is not copied


def repeat_of(head: Head, text: bytes, take: Callable[[str, bytes], bool]) -> Repeat:
    """Of a request with this head, whose body begins with `text` and goes on with tensors."""
    before = head.block + _BLANK
    start, stop = id_place(text)
    return Repeat(
        before + text[:start],
        len(before) + head.content_length,
        head,
        take,
        stop - start,
        text[stop:],
    )
