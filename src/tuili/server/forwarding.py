"""Forwarding: headers of a request that become its parameters, for models that want to see them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from tuili.errors import InvalidArgument, TuiliError
from tuili.server.execution.express import Buffer, Express
from tuili.server.execution.pending import ENDED, Reply, StreamReply, Ticket
from tuili.server.protocol.messages import InferRequest, Parameters
from tuili.server.tracing.tracer import PlainWays, Ways

Patterns = Mapping[Literal["HTTP", "GRPC"], re.Pattern[str]]

_RESERVED: Final = frozenset(
    ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers",
     "binary_data_output")
)  # fmt: skip
_AS_WRITTEN: Final = "(?-i)"  # how RE2, whose syntax Triton has, asks for it


def patterns_of(http: str, grpc: str) -> Patterns:
    """The patterns that are not empty; as in Triton they look anywhere, at letters of any case."""
    given: dict[Literal["HTTP", "GRPC"], str] = {"HTTP": http, "GRPC": grpc}
    return {protocol: _compiled(text) for protocol, text in given.items() if text}


def _compiled(text: str) -> re.Pattern[str]:
    plain = text.removeprefix(_AS_WRITTEN)
    try:
        return re.compile(plain, re.IGNORECASE if plain == text else 0)
    except re.error as error:
        raise InvalidArgument(
            f"{text!r} is no pattern for headers to forward: {error}; expected a regular "
            "expression such as 'x-.*'"
        ) from error


def forwarded(headers: Mapping[str, str], pattern: re.Pattern[str]) -> Parameters:
    """The parameters that headers make; InvalidArgument for one whose name has a meaning."""
    found: Parameters = {}
    for name, value in headers.items():
        if pattern.search(name) is None:
            continue
        if name in _RESERVED or name.startswith("triton_"):
            raise InvalidArgument(
                f"header '{name}' can not be forwarded as a parameter: parameter '{name}' is "
                "reserved for Triton usage and should not be specified."
            )
        found[name] = value
    return found


class Forwarding:
    """Stands in the way of all requests and adds what their headers say."""

    def __init__(self, dataplane: Ways, patterns: Patterns) -> None:
        self._before = PlainWays(dataplane)
        self._patterns = patterns
        dataplane.go_by(self)

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """As the data plane's."""
        refused = self._add(request)
        if refused is not None:
            reply(refused)
            return ENDED
        return self._before.submit(request, reply)

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As the data plane's."""
        refused = self._add(request)
        if refused is not None:
            reply(refused, True)
            return ENDED
        return self._before.submit_stream(request, reply)

    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: object,
        deadline: float | None = None,
        ident: str = "",
    ) -> None:
        """None: each request has headers of its own."""

    def go_by(self, ways: Ways) -> None:
        """Nobody asks."""

    def _add(self, request: InferRequest) -> TuiliError | None:
        origin = request.origin
        pattern = self._patterns.get(origin.protocol) if origin is not None else None
        if origin is None or pattern is None:
            return None
        try:
            found = forwarded(origin.headers(), pattern)
        except InvalidArgument as error:
            return error
        if found:
            # A header, which a gateway may have set, cannot be replaced by the client's body.
            request.parameters = {**(request.parameters or {}), **found}
        return None
