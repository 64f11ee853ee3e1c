"""From an error to the reply that tells a client what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tuili.errors import InvalidArgument, Overloaded, TuiliError, Unsupported
from tuili.server.http.reply import Reply, error_reply
from tuili.server.protocol.parameters import WrongType
from tuili.server.protocol.status import status_of


class JsonMistake(InvalidArgument):
    """JSON that does not parse, or a member of a wrong type: 400 here, 500 in Triton."""


class UnknownCoding(Unsupported):
    """A Content-Encoding that is none of ours."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """The statuses that an operator may choose.

    Triton answers JSON mistakes with 500 and a full queue with 503; clients of ours get 400, and
    429 with Retry-After where that is wanted.
    """

    overload_status: int = 503
    json_mistake_status: int = 400

    def reply(self, error: TuiliError) -> Reply:
        """The reply for `error`."""
        text = str(error)
        if isinstance(error, JsonMistake | WrongType):
            return error_reply(self.json_mistake_status, text)
        if isinstance(error, Overloaded):
            return error_reply(
                self.overload_status, text, ((b"Retry-After", _whole(error.retry_after_s)),)
            )
        if isinstance(error, UnknownCoding):
            return error_reply(501, text, ((b"Accept-Encoding", b"gzip, deflate"),))
        return error_reply(status_of(error).http, text)


def _whole(seconds: float) -> bytes:
    """Seconds as RFC 9110 section 10.2.3 has them: a whole number."""
    return b"%d" % min(max(ceil(seconds), 1), 3600)
