"""The express way in HTTP: by the words of the JSON part, to the head of the reply.

Tensors come and go as bytes, or as arrays of numbers in the JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.execution.express import Dims, Express, common, places_of, remember
from tuili.server.execution.pending import Reply
from tuili.server.execution.unexpected import of_tree
from tuili.server.http.codec import Plan
from tuili.server.http.connection import HttpConnection
from tuili.server.http.cut import Slot, are_right, cut, cut_id, raw_of, slots_of
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import (
    ALL_BINARY,
    NONE_BINARY,
    encode_body,
    frame_head,
)
from tuili.server.http.json_text import dump_numbers
from tuili.server.http.limits import HttpLimits
from tuili.server.http.repeats import is_repeatable, repeat_of
from tuili.server.http.reply import Buffer
from tuili.server.http.routes import Match
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY
from tuili.server.protocol.messages import Array, InferRequest, InferResponse, OutputTensor
from tuili.server.serving.servable import Servable

_MAX_HEADS: Final = 64
_MAX_TEXT: Final = 4096
_DATA: Final = b'"data":'
_NO_NUMBERS: Final = RAW_ONLY | {"BYTES"}

Answer = Callable[[HttpConnection, "InferResponse | TuiliError"], None]
Words = tuple[bytes, str, str]  # of the JSON, and the model and version of the route


class HttpExpress(Express):
    """What requests with the same route and JSON words have in common.

    `slots` are the inputs whose numbers are in the JSON, () where none is; `numbers` tells whether
    those of the outputs go there. Either each of them has an id, or none has.
    """

    long_way: Answer
    slots: tuple[Slot, ...]
    numbers: bool
    heads: dict[tuple[Dims, ...], list[bytes]]

    def send(
        self, target: HttpConnection, shapes: tuple[Dims, ...], parts: list[bytes], ident: str
    ) -> None:
        """Answer a connection: a remembered head and the bytes, or numbers in a remembered text."""
        heads = self.heads.get(shapes)
        if heads is None:
            heads = self._learn(shapes, parts, named=bool(ident))
        if not (self.numbers or ident):
            target.reply_known(heads[0], parts)
            return
        text = [b'{"id":"%b",' % ident.encode() if ident else b"{"]
        if self.numbers:
            rules = self.servable.signature.outputs
            for head, name, part in zip(heads, self.wanted, parts, strict=False):
                text += (head, dump_numbers(np.frombuffer(part, NUMPY[rules[name].datatype])))
            target.reply_known(frame_head(b"".join((*text, heads[-1])), []), [])
        else:
            brought = parts if self.standing is None else []
            target.reply_known(frame_head(text[0] + heads[0], brought), parts)

    def _learn(self, shapes: tuple[Dims, ...], parts: list[bytes], *, named: bool) -> list[bytes]:
        rules = self.servable.signature.outputs
        outputs = [
            OutputTensor(name, rules[name].datatype, shape, self._data(part))
            for name, shape, part in zip(self.wanted, shapes, parts, strict=True)
        ]
        response = InferResponse(self.request.model, self.servable.version, outputs)
        pieces, _ = encode_body(response, NONE_BINARY if self.numbers else ALL_BINARY)
        text = b"".join(pieces)
        if self.numbers:
            *starts, end = text[1:].split(_DATA + b"[]")
            heads = [*(start + _DATA for start in starts), end]
        elif named:
            heads = [text[1:]]
        else:
            heads = [frame_head(text, parts if self.standing is None else [])]
        if len(self.heads) >= _MAX_HEADS:
            self.heads.clear()
        self.heads[shapes] = heads
        return heads

    def _data(self, part: bytes) -> Array | None:
        if self.standing is not None:
            return None
        return np.frombuffer(b"" if self.numbers else part, np.uint8)


class ExpressDesk:
    """Knows the words that came before; one per front end."""

    def __init__(self, dataplane: DataPlane, limits: HttpLimits) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._known: dict[Words, HttpExpress] = {}

    def take(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> bool:
        """Queue a request if its words are known; TuiliError when it is refused."""
        if match.label or head.coding != b"identity":
            return False
        words, ident, arrays, length = self._words(head, body)
        if not 0 < len(words) <= _MAX_TEXT:
            return False
        key = (words, match.model, match.version)
        known = self._known.get(key)
        if known is None:
            return False
        raw = raw_of(known.slots, arrays, self._limits) if arrays else body[length:]
        if raw is None or len(raw) != known.size_bytes:
            return False
        way = partial(known.long_way, connection)
        ticket = self._dataplane.express(known, raw, way, connection, ident=ident)
        if ticket is None:
            del self._known[key]
            return False
        connection.work = ticket
        if not arrays and is_repeatable(head):
            take = partial(self._again, key, known, connection, way)
            connection.repeat = repeat_of(head, bytes(body[:length]), take)
        return True

    def _again(
        self,
        key: Words,
        known: HttpExpress,
        connection: HttpConnection,
        way: Reply,
        ident: str,
        raw: bytes,
    ) -> bool:
        """Queue a request with the words of the one before it; false: they mean something else."""
        try:
            ticket = self._dataplane.express(known, raw, way, connection, None, ident)
            connection.work = ticket
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the connection
            way(of_tree(error, "a request could not be taken"))
            return True
        if ticket is None:
            self._known.pop(key, None)
        return ticket is not None

    def _words(self, head: Head, body: Buffer) -> tuple[bytes, str, list[bytes], int]:
        """What a request says, its id, the arrays of numbers in it, and how long its JSON is."""
        length = head.json_length
        if length is not None:
            # Tensors come as bytes.
            text = bytes(body[:length]) if 0 < length <= _MAX_TEXT else b""
            return *cut_id(text), [], length
        # They are numbers in the text, or lie in shared memory.
        if len(body) > self._limits.max_json_bytes:
            return b"", "", [], 0
        text, arrays = cut(bytes(body))
        return *cut_id(text), arrays, len(body)

    def learn(
        self, head: Head, match: Match, body: Buffer, request: InferRequest, plan: Plan, way: Answer
    ) -> None:
        """Remember the words of a request that came the long way, if such may go the short one."""
        if match.label or request.parameters or head.coding != b"identity":
            return
        servable = self._dataplane.express_servable(request)
        if servable is None:
            return  # before the text is looked at: all requests of such a model come here
        words, ident, arrays, _ = self._words(head, body)
        if not 0 < len(words) <= _MAX_TEXT or ident != request.id or len(arrays) != plan.in_text:
            return
        if (ident or arrays) and not are_right(words, request, self._limits):
            return
        standing = None if plan.binary_bytes or arrays else self._dataplane.standing(request)
        places = places_of(request) if arrays else [(item.start, item.stop) for item in plan.inputs]
        size = places[-1][1] if arrays else plan.binary_bytes
        fields = common(servable, request, [] if standing else places, size, standing)
        if fields is None:
            return
        binary = {plan.form.of(name) for name in fields["wanted"]}
        numbers = standing is None and not all(binary)
        if numbers and not _may_be_numbers(servable, fields["wanted"], binary):
            return
        slots = slots_of(request.inputs) if arrays else ()
        known = HttpExpress(**fields, long_way=way, slots=slots, numbers=numbers, heads={})
        remember(self._known, (words, match.model, match.version), known)


def _may_be_numbers(servable: Servable, wanted: Sequence[str], binary: set[bool]) -> bool:
    """Whether all outputs are asked for as numbers, and can be."""
    kinds = {servable.signature.outputs[name].datatype for name in wanted}
    return not any(binary) and not kinds & _NO_NUMBERS
