"""`InferResponse` to the bytes of an HTTP reply: JSON, then the outputs that go as they are."""

from __future__ import annotations

from typing import Any, Final

from tuili.server.http.codec import Plan
from tuili.server.http.json_tensors import json_from_array
from tuili.server.http.json_text import dump_json
from tuili.server.http.reply import Buffer
from tuili.server.protocol.datatypes import encode
from tuili.server.protocol.messages import VARIANT, InferResponse, OutputTensor

_MAX_HEADS: Final = 1024

_BINARY_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n%b\r\n%b"
)
_JSON_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
)
EVERYTHING_BINARY: Final = Plan([], 0, "", None, None, True, {}, True)


class ReplyEncoder:
    """Makes replies of responses, remembering the heads of those that differ only in their data."""

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def encode(self, response: InferResponse, plan: Plan) -> list[Buffer]:
        """The whole reply, status line included; the first part is `bytes`."""
        if plan.binary_default and not plan.binary and not response.id:
            whole = self._known(response)
            if whole is not None:
                return whole
        text, blobs = encode_body(response, plan)
        return frame(text, blobs, _variant_field(response))

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
            text, _ = encode_body(response, EVERYTHING_BINARY)
            found = frame(text, blobs)[0]
            if len(self._heads) >= _MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[tuple(key)] = bytes(found)
        return [found, *blobs]


def encode_body(response: InferResponse, plan: Plan) -> tuple[bytes, list[Buffer]]:
    """The JSON text of a response and its binary outputs."""
    document: dict[str, Any] = {}
    if response.id:
        document["id"] = response.id
    document["model_name"] = response.model
    document["model_version"] = response.version
    if response.parameters:
        document["parameters"] = response.parameters
    blobs: list[Buffer] = []
    finite = True
    entries: list[dict[str, Any]] = []
    for output in response.outputs:
        entry, output_finite = _describe(output, plan, blobs)
        finite = finite and output_finite
        entries.append(entry)
    document["outputs"] = entries
    return dump_json(document, finite), blobs


def _describe(output: OutputTensor, plan: Plan, blobs: list[Buffer]) -> tuple[dict[str, Any], bool]:
    """The JSON entry of an output; what goes as bytes is added to `blobs`."""
    entry: dict[str, Any] = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    parameters = dict(output.parameters) if output.parameters else {}
    finite = True
    if output.data is not None:
        if plan.binary.get(output.name, plan.binary_default):
            blob = encode(output.data, output.datatype)
            parameters["binary_data_size"] = len(blob)
            blobs.append(blob)
        else:
            entry["data"], finite = json_from_array(output.name, output.datatype, output.data)
    if parameters:
        entry["parameters"] = parameters
    return entry, finite


def frame(text: bytes, blobs: list[Buffer], fields: bytes = b"") -> list[Buffer]:
    """Status line, fields and JSON in the first part, the binary outputs after it."""
    if not blobs:
        return [_JSON_HEAD % (len(text), fields, text)]
    total = len(text) + sum(map(len, blobs))
    return [_BINARY_HEAD % (len(text), total, fields, text), *blobs]


def variant_headers(response: InferResponse) -> tuple[tuple[bytes, bytes], ...]:
    """Which variant of a roll-out answered; nothing without a roll-out."""
    variant = response.parameters.get(VARIANT) if response.parameters else None
    if variant is None:
        return ()
    return ((b"X-Tuili-Variant", str(variant).encode("ascii", "replace")),)


def _variant_field(response: InferResponse) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in variant_headers(response))
