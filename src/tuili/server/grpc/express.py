"""The express way in gRPC: by the bytes before the first tensor, to the bytes before its answer.

Where all tensors lie in shared memory, those bytes are the whole message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, runtime_checkable

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane, Ticket
from tuili.server.execution.express import MOST_BYTES, Buffer, Dims, Express, common
from tuili.server.grpc.encoding import front_of, raw_head
from tuili.server.grpc.frames import PREFIX_BYTES
from tuili.server.grpc.plans import Plan
from tuili.server.protocol.messages import InferRequest, InferResponse, OutputTensor

_MAX_KNOWN: Final = 1024
_MAX_STARTS: Final = 64
_MAX_LEADS: Final = 8
_MAX_TEXT: Final = 4096
_RAW_INPUT: Final = 0x3A  # field 7, length-delimited

Done = Callable[[Any], None]
LongWay = Callable[[Done, "InferResponse | TuiliError"], None]


@runtime_checkable
class Known(Protocol):
    """A call that takes an answer whose start is remembered."""

    def answer_known(self, message: bytes) -> None:
        """Send the message, gRPC's prefix before it, and end the call."""
        ...


class GrpcExpress(Express):
    """What requests with the same bytes before the first tensor have in common."""

    starts: dict[tuple[Dims, ...], list[bytes]]

    def send(self, target: Known, shapes: tuple[Dims, ...], parts: list[bytes]) -> None:
        """Answer a call: what is remembered between the tensors' bytes."""
        starts = self.starts.get(shapes)
        if starts is None:
            starts = self._learn(shapes, parts)
        if len(parts) == 1:
            target.answer_known(starts[0] + parts[0])
        else:
            pieces = [piece for pair in zip(starts, parts, strict=True) for piece in pair]
            target.answer_known(b"".join(pieces))

    def _learn(self, shapes: tuple[Dims, ...], parts: list[bytes]) -> list[bytes]:
        rules = self.servable.signature.outputs
        outputs = [
            OutputTensor(name, rules[name].datatype, shape, None)
            for name, shape in zip(self.wanted, shapes, strict=True)
        ]
        response = InferResponse(self.request.model, self.servable.version, outputs)
        starts = [raw_head(len(part)) for part in parts]
        starts[0] = front_of(response) + starts[0]
        size = sum(map(len, starts)) + sum(map(len, parts))
        starts[0] = size.to_bytes(PREFIX_BYTES, "big") + starts[0]
        if len(self.starts) >= _MAX_STARTS:
            self.starts.clear()
        self.starts[shapes] = starts
        return starts


class ExpressDesk:
    """Knows the words that came before; one per front end. Models with one input go this way."""

    def __init__(self, dataplane: DataPlane, long_way: LongWay) -> None:
        self._dataplane = dataplane
        self._long_way = long_way
        self._known: dict[bytes, GrpcExpress] = {}
        # How many bytes come before the tensor of requests that went this way, the last ones first.
        self._leads: list[int] = []

    def take(
        self, message: Buffer, deadline: float | None, done: Done, origin: object
    ) -> Ticket | None:
        """Queue a request if its words are known, else None; TuiliError when it is refused."""
        for lead in self._leads:
            known = self._known.get(bytes(message[:lead]))
            if known is not None and len(message) - lead == known.size_bytes:
                reply = partial(self._long_way, done)
                raw = (
                    memoryview(message)[lead:] if known.size_bytes > MOST_BYTES else message[lead:]
                )
                ticket = self._dataplane.express(known, raw, reply, origin, deadline)
                if ticket is None:
                    del self._known[bytes(message[:lead])]
                return ticket
        return None

    def learn(self, message: Buffer, request: InferRequest, plan: Plan, origin: object) -> None:
        """Remember the words of a request that came the long way, if such may go the short one."""
        servable = self._dataplane.express_servable(request)
        if servable is None or request.id or plan.empty_final or not isinstance(origin, Known):
            return
        standing = None if plan.raw_count else self._dataplane.standing(request)
        size = 0
        if standing is None:
            if len(plan.inputs) != 1 or not plan.inputs[0].raw or plan.inputs[0].size <= 0:
                return
            size = plan.inputs[0].size
        lead = len(message) - size
        if lead > _MAX_TEXT:
            return
        head = bytes(message[:lead])
        # The tensor is last, as every serializer writes it.
        if standing is None and not head.endswith(raw_head(size, _RAW_INPUT)):
            return
        fields = common(servable, request, [] if standing else [(0, size)], size, standing)
        if fields is None:
            return
        if len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[head] = GrpcExpress(**fields, starts={})
        self._leads = [lead, *[each for each in self._leads if each != lead]][:_MAX_LEADS]
