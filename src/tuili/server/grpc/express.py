"""The express way in gRPC: by the bytes before the first tensor, to the bytes before its answer.

The request's id is taken out of those bytes. Where all tensors lie in shared memory, they are the
whole message; where they are typed contents, all but these (`typed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane, Ticket
from tuili.server.execution.express import (
    MOST_BYTES,
    Buffer,
    Dims,
    Express,
    common,
    places_of,
    remember,
)
from tuili.server.grpc.encoding import front_of, raw_head
from tuili.server.grpc.frames import PREFIX_BYTES
from tuili.server.grpc.long_message import LONG_BYTES
from tuili.server.grpc.plans import Plan, PlannedInput
from tuili.server.grpc.typed import Slot, cut, raw_of, slots_of
from tuili.server.protocol.messages import InferRequest, InferResponse, OutputTensor
from tuili.server.serving.servable import Servable

_MAX_STARTS: Final = 64
_MAX_LEADS: Final = 8
_MAX_TEXT: Final = 4096
_RAW_INPUT: Final = 0x3A  # field 7, length-delimited
_MODEL: Final = b"\x0a"  # fields 1, 2 and 3
_VERSION: Final = b"\x12"
_ID: Final = b"\x1a"
_NAMED: Final = b"\0"  # no message begins with it

Done = Callable[[Any], None]
LongWay = Callable[[Done, "InferResponse | TuiliError"], None]


@runtime_checkable
class Known(Protocol):
    """A call that takes an answer whose start is remembered."""

    def answer_known(self, message: bytes) -> None:
        """Send the message, gRPC's prefix before it, and end the call."""
        ...

    def note(self, said: Said | None) -> None:
        """What the call said, which the next one on its connection may say again."""
        ...


class GrpcExpress(Express):
    """What requests with the same bytes around their tensors have in common.

    `gaps` are those before each tensor but the first, and where they are behind the lead.
    """

    gaps: tuple[tuple[int, bytes], ...]
    starts: dict[tuple[Dims, ...], list[bytes]]

    def fits(self, message: Buffer, lead: int) -> bool:
        """Whether the tensors of a message with these words begin after `lead` bytes."""
        if len(message) - lead != self.size_bytes:
            return False
        return all(message[lead + at : lead + at + len(gap)] == gap for at, gap in self.gaps)

    def send(self, target: Known, shapes: tuple[Dims, ...], parts: list[bytes], ident: str) -> None:
        """Answer a call: what is remembered between the tensors' bytes."""
        starts = self.starts.get(shapes)
        if starts is None:
            starts = self._learn(shapes, parts)
        first = starts[0]
        if ident:
            first = _with_id(first, ident.encode())
        if len(parts) == 1:
            target.answer_known(first + parts[0])
        else:
            pieces = [piece for pair in zip(starts, parts, strict=True) for piece in pair]
            pieces[0] = first
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


class Said(NamedTuple):
    """The words of a message before and behind its id, and what they mean: all but its tensors.

    `key` is what the desk knows them by.
    """

    before: bytes
    id_bytes: int
    behind: bytes
    key: bytes
    known: GrpcExpress
    desk: ExpressDesk

    def take(
        self, message: Buffer, deadline: float | None, done: Done, origin: Known
    ) -> Ticket | None:
        """Queue a request that says the same, else None; TuiliError when it is refused."""
        if not isinstance(message, bytes) or not message.startswith(self.before):
            return None
        at, ident = len(self.before), ""
        if self.id_bytes:
            stop = at + self.id_bytes
            named = message[at:stop]
            if not named.isascii() or not message.startswith(self.behind, stop):
                return None
            at, ident = stop + len(self.behind), named.decode()
        if not self.known.fits(message, at):
            return None
        ticket = self.desk.queue(self.known, ident, message[at:], deadline, done, origin)
        if ticket is None:
            # The words mean something else by now, or this request goes the long way.
            self.desk.forget(self.key)
            origin.note(None)
        return ticket


class TypedExpress(GrpcExpress):
    """The same for requests whose tensors come as typed contents."""

    slots: tuple[Slot, ...]


class ExpressDesk:
    """Knows the words that came before; one per front end."""

    def __init__(self, dataplane: DataPlane, long_way: LongWay) -> None:
        self._dataplane = dataplane
        self._long_way = long_way
        self._known: dict[bytes, GrpcExpress] = {}
        # How many bytes come before the tensor of requests that went this way, the last ones first.
        self._leads: list[int] = []
        self._typed: dict[bytes, TypedExpress] = {}

    def take(
        self, message: Buffer, deadline: float | None, done: Done, origin: Any
    ) -> Ticket | None:
        """Queue a request if its words are known, else None; TuiliError when it is refused."""
        at, end, ident = _id_of(message)
        for lead in self._leads:
            head = bytes(message[:lead])
            start = lead
            if ident:
                start += end - at
                head = _without_id(bytes(message[:start]), at, end)
            known = self._known.get(head)
            if known is not None and known.fits(message, start):
                view = memoryview(message) if known.size_bytes > MOST_BYTES else message
                ticket = self.queue(known, ident, view[start:], deadline, done, origin)
                if ticket is None:
                    del self._known[head]
                elif known.size_bytes <= MOST_BYTES:
                    words, id_at = bytes(message[:start]), at + 2 if ident else start
                    said = Said(words[:id_at], end - id_at, words[end:], head, known, self)
                    origin.note(said)
                return ticket
        return self._take_typed(message, deadline, done, origin) if self._typed else None

    def _take_typed(
        self, message: Buffer, deadline: float | None, done: Done, origin: object
    ) -> Ticket | None:
        """The same for a request with typed contents."""
        found = cut(message)
        known = self._typed.get(found.words) if found else None
        if found is None or known is None:
            return None
        view = memoryview(message) if known.size_bytes > MOST_BYTES else message
        raw = raw_of(known.slots, view, found.contents)
        if raw is None:
            return None
        ticket = self.queue(known, found.ident, raw, deadline, done, origin)
        if ticket is None:
            del self._typed[found.words]
        return ticket

    def queue(
        self,
        known: GrpcExpress,
        ident: str,
        raw: Buffer,
        deadline: float | None,
        done: Done,
        origin: object,
    ) -> Ticket | None:
        """Queue a request whose words are known; None if they mean something else by now."""
        way = partial(self._long_way, done)
        return self._dataplane.express(known, raw, way, origin, deadline, ident)

    def forget(self, words: bytes) -> None:
        """These words mean something else by now."""
        self._known.pop(words, None)

    def learn(self, message: Buffer, request: InferRequest, plan: Plan, origin: object) -> None:
        """Remember the words of a request that came the long way, if such may go the short one."""
        servable = self._dataplane.express_servable(request)
        if servable is None or plan.empty_final or not isinstance(origin, Known):
            return
        if not plan.raw_count and all(each.data is not None for each in request.inputs):
            self._learn_typed(servable, message, request)
            return
        at, end, ident = _id_of(message)
        standing = None if plan.raw_count else self._dataplane.standing(request)
        if ident != request.id or not (standing or all(_is_raw(each) for each in plan.inputs)):
            return
        places, gaps = _laid_out([] if standing else [each.size for each in plan.inputs])
        size = places[-1][1] if places else 0
        start = len(message) - size
        if start > _MAX_TEXT:
            return
        head = bytes(message[:start])
        # The tensors are last, as every serializer writes them.
        if places and not head.endswith(raw_head(places[0][1], _RAW_INPUT)):
            return
        fields = common(servable, request, places, size, standing)
        if fields is None:
            return
        known = GrpcExpress(**fields, gaps=gaps, starts={})
        if not known.fits(message, start):
            return
        if ident:
            head, start = _without_id(head, at, end), start - (end - at)
        remember(self._known, head, known)
        self._leads = [start, *[each for each in self._leads if each != start]][:_MAX_LEADS]

    def _learn_typed(self, servable: Servable, message: Buffer, request: InferRequest) -> None:
        found, slots = cut(message), slots_of(request.inputs)
        if found is None or slots is None or found.ident != request.id:
            return
        if len(message) >= LONG_BYTES and any(slot.pack is not None for slot in slots):
            return  # to read its numbers takes long
        if len(found.words) > _MAX_TEXT:
            return
        places = places_of(request)
        fields = common(servable, request, places, places[-1][1])
        if fields is not None:
            known = TypedExpress(**fields, gaps=(), starts={}, slots=slots)
            remember(self._typed, found.words, known)


def _is_raw(planned: PlannedInput) -> bool:
    return planned.raw and planned.size > 0


def _laid_out(sizes: Sequence[int]) -> tuple[list[tuple[int, int]], tuple[tuple[int, bytes], ...]]:
    """Where tensors of these sizes lie one behind the other, and what stands between them."""
    places: list[tuple[int, int]] = []
    gaps: list[tuple[int, bytes]] = []
    at = 0
    for size in sizes:
        if places:
            gaps.append((at, raw_head(size, _RAW_INPUT)))
            at += len(gaps[-1][1])
        places.append((at, at + size))
        at += size
    return places, tuple(gaps)


def _id_of(message: Buffer) -> tuple[int, int, str]:
    """Where the field of a request's id lies, and the id; "" where none stands in its usual place.

    Serializers write the fields of a message by their numbers: model, version, id.
    """
    at = 0
    for tag in (_MODEL, _VERSION):
        if message[at : at + 1] == tag:
            at = _end_of(message, at)
    if message[at : at + 1] != _ID:
        return at, at, ""
    end = _end_of(message, at)
    ident = bytes(message[at + 2 : end])
    # Odd ones go the long way.
    return (
        (at, end, ident.decode())
        if ident.isascii() and len(ident) == end - at - 2
        else (at, at, "")
    )


def _end_of(message: Buffer, at: int) -> int:
    """Where a field with a short text ends; where it begins, if the text is long."""
    size = message[at + 1] if len(message) > at + 1 else 0x80
    return at + 2 + size if size < 0x80 else at


def _without_id(head: bytes, at: int, end: int) -> bytes:
    """The words of a request with an id: never those of one that has none."""
    return _NAMED + head[:at] + head[end:]


def _with_id(start: bytes, ident: bytes) -> bytes:
    """The start of a response, with an id; protobuf lets fields come in any order."""
    field = _ID + bytes((len(ident),)) + ident
    size = int.from_bytes(start[:PREFIX_BYTES], "big") + len(field)
    return size.to_bytes(PREFIX_BYTES, "big") + field + start[PREFIX_BYTES:]
