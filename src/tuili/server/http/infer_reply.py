"""`InferResponse` to the bytes of an HTTP reply: JSON, then the outputs that go as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from tuili.server.http.json_tensors import array_text, write_array
from tuili.server.http.json_text import dump_json
from tuili.server.http.pieces import PLACE, Pieces, size_of, spliced
from tuili.server.http.reply import Buffer
from tuili.server.protocol.datatypes import TURN_ELEMENTS, encode, write_bytes
from tuili.server.protocol.messages import VARIANT, Array, InferResponse, OutputTensor
from tuili.server.steps import Steps

_MAX_HEADS: Final = 1024
_NO_TEXTS: Final[dict[str, Pieces]] = {}
Body = tuple[Pieces, list[Buffer]]  # JSON, and the outputs that go as bytes

_BINARY_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n%b\r\n"
)
_JSON_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
)


class Form(msgspec.Struct, frozen=True):
    """Which outputs a request wants as bytes behind the JSON; the others are arrays in it."""

    default: bool
    binary: dict[str, bool] = {}  # of the outputs that say it for themselves

    def of(self, name: str) -> bool:
        """Whether this output goes as bytes."""
        return self.binary.get(name, self.default)


ALL_BINARY: Final = Form(True)
NONE_BINARY: Final = Form(False)


class ReplyEncoder:
    """Makes replies of responses, remembering the heads of those that differ only in their data."""

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def encode(self, response: InferResponse, form: Form) -> list[Buffer]:
        """The whole reply, status line included; the first part is `bytes`."""
        if form.default and not form.binary and not response.id:
            whole = self._known(response)
            if whole is not None:
                return whole
        return frame_body(response, *encode_body(response, form))

    def _known(self, response: InferResponse) -> list[Buffer] | None:
        """The reply from a remembered head; None when it has parts that change."""
        if response.parameters is not None:
            return None
        key: list[Any] = [response.model, response.version]
        blobs: list[Buffer] = []
        for output in response.outputs:
            data = output.data
            if data is None or output.parameters is not None or data.dtype.hasobject:
                return None
            key += (output.name, output.datatype, output.shape)
            blobs.append(data.tobytes() if data.nbytes < 16384 else encode(data, ""))
        found = self._heads.get(tuple(key))
        if found is None:
            text, _ = encode_body(response, ALL_BINARY)
            found = frame_head(b"".join(text), blobs)
            if len(self._heads) >= _MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[tuple(key)] = found
        return [found, *blobs]


def encode_body(
    response: InferResponse, form: Form, texts: Mapping[str, Pieces] = _NO_TEXTS
) -> Body:
    """The JSON text of a response and its binary outputs; `texts` are those written already."""
    document: dict[str, Any] = {}
    if response.id:
        document["id"] = response.id
    document["model_name"] = response.model
    document["model_version"] = response.version
    if response.parameters:
        document["parameters"] = response.parameters
    blobs: list[Buffer] = []
    places: list[Pieces] = []
    described: list[dict[str, Any]] = []
    for output in response.outputs:
        pieces = texts.get(output.name)
        entry, blob = _describe(output, form, pieces)
        described.append(entry)
        blobs += blob
        if pieces is not None and not form.of(output.name):
            places.append(pieces)
    document["outputs"] = described
    return spliced(dump_json(document), places), blobs


def write_body(response: InferResponse, form: Form) -> Steps[Body]:
    """As `encode_body`, with turns for others."""
    texts: dict[str, Pieces] = {}
    for output in response.outputs:
        data = output.data
        if data is not None and _is_long(output, data, form):
            binary = form.of(output.name)
            texts[output.name] = (
                yield from write_bytes(data) if binary else write_array(output, data)
            )
    return encode_body(response, form, texts)


def is_long(response: InferResponse, form: Form) -> bool:
    """Whether to write a response takes long."""
    for output in response.outputs:
        if output.data is not None and _is_long(output, output.data, form):
            return True
    return False


def _is_long(output: OutputTensor, data: Array, form: Form) -> bool:
    return data.size > TURN_ELEMENTS and (data.dtype.hasobject or not form.of(output.name))


def _describe(
    output: OutputTensor, form: Form, pieces: Pieces | None
) -> tuple[dict[str, Any], Sequence[Buffer]]:
    """The JSON entry of an output, and what of it goes as bytes; `pieces` if they are there."""
    entry: dict[str, Any] = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    parameters = dict(output.parameters) if output.parameters else {}
    data = output.data
    blobs: Sequence[Buffer] = ()
    if data is not None:
        if form.of(output.name):
            blobs = [encode(data, output.datatype)] if pieces is None else pieces
            parameters["binary_data_size"] = sum(map(len, blobs))
        elif pieces is None:
            entry["data"] = orjson.Fragment(array_text(output, data))
        else:
            entry["data"] = PLACE
    if parameters:
        entry["parameters"] = parameters
    return entry, blobs


def frame_body(response: InferResponse, text: Pieces, blobs: list[Buffer]) -> list[Buffer]:
    """Status line, fields and what JSON begins with in the first part, the rest after it."""
    head = _head(size_of(text), blobs, _variant_field(response))
    return [head + text[0], *text[1:], *blobs]


def frame_head(text: bytes, blobs: Sequence[Buffer]) -> bytes:
    """What comes before the binary outputs."""
    return _head(len(text), blobs, b"") + text


def _head(size: int, blobs: Sequence[Buffer], fields: bytes) -> bytes:
    """Status line and fields before a JSON text of that size."""
    if not blobs:
        return _JSON_HEAD % (size, fields)
    return _BINARY_HEAD % (size, size + sum(map(len, blobs)), fields)


def variant_headers(response: InferResponse) -> tuple[tuple[bytes, bytes], ...]:
    """Which variant of a roll-out answered; nothing without a roll-out."""
    variant = response.parameters.get(VARIANT) if response.parameters else None
    if variant is None:
        return ()
    return ((b"X-Tuili-Variant", str(variant).encode("ascii", "replace")),)


def _variant_field(response: InferResponse) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in variant_headers(response))
