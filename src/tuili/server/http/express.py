"""The express way in HTTP: by the words of the JSON part, to the head of the reply."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.execution.express import Dims, Express, common
from tuili.server.http.codec import Plan
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import EVERYTHING_BINARY, encode_body, frame
from tuili.server.http.reply import Buffer
from tuili.server.http.routes import Match
from tuili.server.protocol.messages import Array, InferRequest, InferResponse, OutputTensor

_MAX_KNOWN: Final = 1024
_MAX_HEADS: Final = 64
_MAX_TEXT: Final = 4096

Answer = Callable[[HttpConnection, "InferResponse | TuiliError"], None]


class HttpExpress(Express):
    """What requests with the same route and JSON text have in common."""

    long_way: Answer
    heads: dict[tuple[Dims, ...], bytes]

    def send(self, target: HttpConnection, shapes: tuple[Dims, ...], parts: list[bytes]) -> None:
        """Answer a connection: a remembered head, then the bytes."""
        head = self.heads.get(shapes)
        if head is None:
            head = self._learn(shapes, parts)
        target.reply_known(head, parts)

    def _learn(self, shapes: tuple[Dims, ...], parts: list[bytes]) -> bytes:
        rules = self.servable.signature.outputs
        outputs = [
            OutputTensor(name, rules[name].datatype, shape, self._data(part))
            for name, shape, part in zip(self.wanted, shapes, parts, strict=True)
        ]
        response = InferResponse(self.request.model, self.servable.version, outputs)
        text, _ = encode_body(response, EVERYTHING_BINARY)
        head = bytes(frame(text, list(parts) if self.standing is None else [])[0])
        if len(self.heads) >= _MAX_HEADS:
            self.heads.clear()
        self.heads[shapes] = head
        return head

    def _data(self, part: bytes) -> Array | None:
        return np.frombuffer(part, np.uint8) if self.standing is None else None


class ExpressDesk:
    """Knows the words that came before; one per front end."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._known: dict[tuple[bytes, str, str], HttpExpress] = {}

    def take(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> bool:
        """Queue a request if its words are known; TuiliError when it is refused."""
        length = head.json_length
        if length is None:
            length = len(body)  # No tensor comes as bytes: they lie in shared memory, or are text.
        if not 0 < length <= _MAX_TEXT or match.label or head.coding != b"identity":
            return False
        key = (bytes(body[:length]), match.model, match.version)
        known = self._known.get(key)
        if known is None or len(body) - length != known.size_bytes:
            return False
        ticket = self._dataplane.express(
            known, body[length:], partial(known.long_way, connection), connection
        )
        if ticket is None:
            del self._known[key]
            return False
        connection.work = ticket
        return True

    def learn(
        self, head: Head, match: Match, body: Buffer, request: InferRequest, plan: Plan, way: Answer
    ) -> None:
        """Remember the words of a request that came the long way, if such may go the short one."""
        length = len(body) if head.json_length is None else head.json_length
        if not plan.constant or match.label or not 0 < length <= _MAX_TEXT:
            return
        servable = self._dataplane.express_servable(request)
        if servable is None:
            return
        standing = None if plan.binary_bytes else self._dataplane.standing(request)
        places = [] if standing else [(item.start, item.stop) for item in plan.inputs]
        fields = common(servable, request, places, plan.binary_bytes, standing)
        if fields is None:
            return
        binary = [plan.binary.get(name, plan.binary_default) for name in fields["wanted"]]
        if standing is None and not all(binary):
            return
        if len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        key = (bytes(body[:length]), match.model, match.version)
        self._known[key] = HttpExpress(**fields, long_way=way, heads={})
