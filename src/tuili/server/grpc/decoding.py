"""ModelInferRequest bytes to `InferRequest`.

Tensors travel in `raw_input_contents`, which every serializer writes last.  What comes before is
small, is parsed by protobuf and says the same for most requests of a client; so its bytes (less the
request id) are the key of a remembered *plan*, and the tensors become views of the message without
being copied.  What takes long of a long message, its texts and typed contents, is read in steps.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from tuili.errors import InternalError, InvalidArgument, TuiliError
from tuili.server.grpc.long_contents import without_contents
from tuili.server.grpc.long_message import LONG_BYTES
from tuili.server.grpc.plans import Plan, PlannedInput, is_typed, plan_request, read_contents
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.varints import MOST_FIELDS, Buffer, varint
from tuili.server.protocol.datatypes import decode_bytes, read_bytes
from tuili.server.protocol.messages import Array, InferRequest, InputTensor
from tuili.server.steps import Steps, at_once

_ID: Final = 0x1A  # field 3, length-delimited
_RAW: Final = 0x3A  # field 7, length-delimited
_DELIMITED: Final = frozenset((0x0A, 0x12, _ID, 0x22, 0x2A, 0x32, _RAW))
_MAX_PLANS: Final = 1024
_MAX_PLAN_BYTES: Final = 4096

_Request: Final = INFERENCE["ModelInferRequest"]
Decoded = tuple[InferRequest, Plan]


class RequestDecoder:
    """Makes requests of messages; one per front end, since it remembers plans."""

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}
        self._key_size = 0  # of the last request

    def decode(self, message: Buffer) -> Decoded:
        """The request in a serialized ModelInferRequest; its arrays are views of `message`."""
        if len(message) >= LONG_BYTES:
            return at_once(self.read(message))
        return self._request(message, *self._find(message), {})

    def read(self, message: Buffer) -> Steps[Decoded]:
        """The same, with turns for others."""
        plan, ident, raws = self._find(message)
        for item in plan.inputs:
            yield from read_contents(item)
        texts: dict[str, Array] = {}
        raw = [item for item in plan.inputs if item.raw]
        for item, (start, end) in zip(reversed(raw), reversed(raws), strict=True):
            if item.size < 0:
                text = memoryview(message)[start:end]
                texts[item.name] = yield from read_bytes(item.name, item.shape, text, plan.model)
        return self._request(message, plan, ident, raws, texts)

    def _find(self, message: Buffer) -> tuple[Plan, str, list[tuple[int, int]]]:
        """The plan of a message, its id, and where its raw tensors are."""
        ident = ""
        try:
            # Most requests begin like the one before them; then their fields need no walk.
            plan = self._plans.get(bytes(message[: self._key_size]))
            raws = None if plan is None else _only_raws(message, self._key_size)
            if plan is None or raws is None:
                key, ident, raws = _split(message)
                plan = self._plan(key)
        except IndexError:
            raise InternalError("malformed ModelInferRequest: it ends too early") from None
        if len(raws) != plan.raw_count:
            raise InvalidArgument(_count_mismatch(plan, len(raws)))
        return plan, ident, raws

    def _request(
        self,
        message: Buffer,
        plan: Plan,
        ident: str,
        raws: list[tuple[int, int]],
        texts: dict[str, Array],
    ) -> Decoded:
        """The request of a plan; `texts` are what is read of its raw tensors already."""
        inputs: list[InputTensor] = []
        # As Triton, which of two inputs that are wrong tells the last.
        for item in reversed(plan.inputs):
            data = item.array
            misfit = item.misfit_bytes
            if item.raw:
                start, end = raws.pop()
                if item.name in texts:
                    data = texts[item.name]
                elif item.size in (-1, end - start):
                    data = _view(item, plan.model, message, start, end)
                else:
                    misfit = end - start
            inputs.append(
                InputTensor(item.name, item.datatype, item.shape, data, item.parameters, misfit)
            )
        inputs.reverse()
        parameters = None if plan.parameters is None else plan.parameters.copy()
        request = InferRequest(plan.model, inputs, plan.version, ident, plan.outputs, parameters)
        return request, plan

    def _plan(self, key: bytes) -> Plan:
        if len(key) >= LONG_BYTES:
            rest, contents = without_contents(key)
            return plan_request(_parsed(rest), contents)
        self._key_size = len(key)
        return self._plans.get(key) or self._learn(key)

    def _learn(self, key: bytes) -> Plan:
        plan = plan_request(_parsed(key))
        if len(key) <= _MAX_PLAN_BYTES and not any(is_typed(item) for item in plan.inputs):
            if len(self._plans) >= _MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan


def _parsed(data: bytes) -> Any:
    try:
        return _Request.FromString(data)
    except DecodeError as error:
        raise InternalError(f"malformed ModelInferRequest: {error}") from None


def _only_raws(message: Buffer, at: int) -> list[tuple[int, int]] | None:
    """Where the raw tensors are, if nothing but them comes from `at` on."""
    end = len(message)
    raws: list[tuple[int, int]] = []
    while at < end:
        if message[at] != _RAW:
            return None
        size, start = varint(message, at + 1)
        at = start + size
        raws.append((start, at))
        if len(raws) > MOST_FIELDS:
            return None  # which `_split` tells
    return raws if at == end else None


def _split(message: Buffer) -> tuple[bytes, str, list[tuple[int, int]]]:
    """The bytes of all fields but id and raw data, the id, and where each raw tensor is."""
    at, end = 0, len(message)
    ident = ""
    raws: list[tuple[int, int]] = []
    pieces: list[tuple[int, int]] = []  # what stays, as merged ranges
    kept = 0  # start of the present range
    fields = 0
    while at < end:
        fields += 1
        if fields > MOST_FIELDS:
            raise InvalidArgument(f"a ModelInferRequest of more than {MOST_FIELDS} fields")
        tag = message[at]
        if tag not in _DELIMITED:
            raise InternalError(f"malformed ModelInferRequest: unexpected field tag {tag:#x}")
        size, start = varint(message, at + 1)
        stop = start + size
        if stop > end:
            raise InternalError("malformed ModelInferRequest: it ends too early")
        if tag in (_RAW, _ID):
            if kept < at:
                pieces.append((kept, at))
            kept = stop
            if tag == _RAW:
                raws.append((start, stop))
            else:
                ident = _text(message, start, stop)
        at = stop
    if kept < end:
        pieces.append((kept, end))
    if len(pieces) == 1:
        return bytes(message[pieces[0][0] : pieces[0][1]]), ident, raws
    return b"".join([message[start:stop] for start, stop in pieces]), ident, raws


def request_id(message: Buffer) -> str:
    """The id of a request that may be malformed otherwise."""
    try:
        return _split(message)[1]
    except (IndexError, TuiliError):
        return ""


def tensor_offset(start: bytes) -> int:
    """Where the first raw tensor of a request that starts like this begins; 0 if not told."""
    at = 0
    try:
        while start[at] in _DELIMITED:
            size, content = varint(start, at + 1)
            if start[at] == _RAW:
                return content
            at = content + size
    except (IndexError, InvalidArgument):
        return 0
    return 0


def _text(message: Buffer, start: int, stop: int) -> str:
    try:
        return str(message[start:stop], "utf-8")
    except UnicodeDecodeError:
        raise InternalError("malformed ModelInferRequest: the id is not UTF-8") from None


def _view(item: PlannedInput, model: str, message: Buffer, start: int, end: int) -> Array:
    """The array of an input inside the message."""
    if item.size < 0:
        return decode_bytes(item.name, item.shape, memoryview(message)[start:end], model)
    return np.ndarray(item.shape, item.dtype, message, start)


def _count_mismatch(plan: Plan, got: int) -> str:
    if plan.raw_count == 0:
        return (
            "contents field must not be specified when using raw_input_contents for '"
            f"{plan.inputs[0].name if plan.inputs else ''}' for model '{plan.model}'"
        )
    raw = [item.name for item in plan.inputs if item.raw]
    if got < len(raw):
        where = f"input tensor '{raw[got]}' for model '{plan.model}'"
        return f"unable to find data for {where} in request."
    return (
        f"expected {plan.raw_count} raw_input_contents for the inputs of model '{plan.model}',"
        f" got {got}"
    )
