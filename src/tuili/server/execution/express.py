"""The express way: requests that differ from earlier ones in nothing but their tensors and id.

Nearly all requests of a client say the same words about new numbers. What those words mean (which
model version, which inputs, whether they fit, how the answer begins) is worked out once, by the
long way, and kept as an `Express`. A later request with the same words only brings its bytes along:
a batch of such requests is joined as bytes and split as bytes, and no array is made for a request.

Only what is plain goes this way; all its tensors may lie in shared memory instead. Bytes are joined
and split only where they are few: large tensors become arrays again, to run and to be answered. A
model behind a roll-out, a door, a cache, a layout or sequences takes the long way, or one whose
answers leave in order, as does a request with parameters.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from tuili.errors import TuiliError
from tuili.server.memory.sigbus import GUARD
from tuili.server.protocol.datatypes import NUMPY
from tuili.server.protocol.messages import (
    SHARED_MEMORY_KEYS,
    Array,
    InferRequest,
    InputTensor,
)
from tuili.server.protocol.signature import Alone
from tuili.server.telemetry.statistics import Statistics

if TYPE_CHECKING:
    from tuili.server.execution.pending import Pending
    from tuili.server.memory.standing import Standing
    from tuili.server.serving.servable import Servable

_log = logging.getLogger("tuili.server")
_NS: Final = 1_000_000_000
# Bytes that are few: of a request, and of the answers of a batch, on average.
MOST_BYTES: Final = 16 << 10
_MAX_KNOWN: Final = 1024  # words that are remembered

_PLACE: Final = frozenset(SHARED_MEMORY_KEYS)

Buffer = bytes | bytearray | memoryview
Dims = tuple[int, ...]
Span = tuple[str, np.dtype[Any], Dims, int, int]


class Express(msgspec.Struct, eq=False):
    """What every request with the same words has in common.

    `spans` tell of each input its name, type and shape, and where it lies among the bytes that a
    request brings, which are `size_bytes` in all. `wanted` are the outputs in the answer's order;
    `added` are the dims of size 1 that each has on the wire beyond the model's, () where none has.
    `standing` is where all tensors lie in shared memory, if they do: then no bytes are brought. A
    transport adds how an answer begins.
    """

    servable: Servable
    request: InferRequest
    rows: int
    lane: object
    elements: int
    spans: tuple[Span, ...]
    size_bytes: int
    wanted: tuple[str, ...]
    added: tuple[Dims, ...]
    standing: Standing | None

    def send(self, target: Any, shapes: tuple[Dims, ...], parts: list[bytes], ident: str) -> None:
        """Answer `target`, whose request has this id, with outputs of these shapes and bytes.

        Those of outputs in shared memory are there already, and none here.
        """
        raise NotImplementedError

    def request_of(self, ident: str) -> InferRequest:
        """What the one request says that has this id."""
        words = self.request
        return InferRequest(
            words.model, [], words.version, ident, words.outputs, shared=words.shared
        )

    def arrays(self, raw: Buffer) -> dict[str, Array]:
        """The inputs of one request, for whoever needs arrays."""
        return {
            name: np.ndarray(shape, dtype, raw, start)
            for name, dtype, shape, start, _ in self.spans
        }


Words = TypeVar("Words", bytes, tuple[bytes, str, str])
Way = TypeVar("Way", bound=Express)


def common(
    servable: Servable,
    request: InferRequest,
    places: Sequence[tuple[int, int]],
    size_bytes: int,
    standing: Standing | None = None,
) -> dict[str, Any] | None:
    """The fields of an `Express` for requests with the words of this one; None if it is not plain.

    Its id is not one of them. `places` tell where each input lies among the bytes that a request
    brings.
    """
    if request.parameters or not request.inputs:
        return None
    if not _are_plain(request, standing):
        return None
    wanted = servable.signature.output_order
    if request.outputs:
        wanted = tuple([output.name for output in request.outputs])
    try:
        checked = servable.signature.check(_filled(request, standing))
    except TuiliError:
        return None  # The long way tells what is wrong with it.
    if isinstance(checked.lane, Alone):
        return None  # Each has a lane of its own.
    arrays = checked.arrays
    spans = [
        (tensor.name, arrays[tensor.name].dtype, arrays[tensor.name].shape, start, stop)
        for tensor, (start, stop) in zip(request.inputs, places, strict=standing is None)
    ]
    # By name, as requests that name their inputs in another order may join the same batch.
    spans.sort(key=lambda span: span[0])
    if standing is not None:
        standing.arrays = arrays
    rules = [servable.signature.outputs[name] for name in wanted]
    added = tuple([() if rule.reshape is None else rule.dims for rule in rules])
    words = InferRequest(
        request.model, [], request.version, outputs=request.outputs, shared=standing
    )
    return {
        "servable": servable,
        "request": words,
        "rows": checked.rows,
        "lane": checked.lane,
        "elements": sum(array.size for array in arrays.values()),
        "spans": tuple(spans),
        "size_bytes": size_bytes,
        "wanted": wanted,
        "added": added if any(added) else (),
        "standing": standing,
    }


def places_of(request: InferRequest) -> list[tuple[int, int]]:
    """Where each input lies among the bytes of all, one after the other."""
    sizes = [0 if each.data is None else each.data.nbytes for each in request.inputs]
    stops = list(accumulate(sizes))
    return list(zip([0, *stops], stops, strict=False))


def remember(known: dict[Words, Way], words: Words, way: Way) -> None:
    """Keep a way for the requests with these words, in place of the oldest of many."""
    if len(known) >= _MAX_KNOWN:
        del known[next(iter(known))]
    known[words] = way


def _are_plain(request: InferRequest, standing: Standing | None) -> bool:
    """Whether tensors say nothing but what they are, and where in shared memory."""
    if standing is not None:
        outputs = request.outputs or ()
        texts = any(array.dtype.hasobject for array in standing.arrays.values())
        return not texts and all(set(each.parameters or ()) <= _PLACE for each in outputs)
    said = any(output.parameters for output in request.outputs or ())
    return not said and not any(map(_is_special, request.inputs))


def _filled(request: InferRequest, standing: Standing | None) -> InferRequest:
    """The request with its inputs, wherever they lie."""
    if standing is None:
        return request
    inputs = [
        InputTensor(each.name, each.datatype, each.shape, standing.arrays[each.name])
        for each in request.inputs
    ]
    return InferRequest(request.model, inputs, request.version, outputs=request.outputs)


def _is_special(tensor: InputTensor) -> bool:
    """Whether an input brings no bytes of its own, or says more than its shape."""
    data = tensor.data
    return data is None or not data.nbytes or data.dtype.hasobject or bool(tensor.parameters)


def join_raw(batch: Sequence[Pending]) -> dict[str, Array] | None:
    """The joined inputs of a batch; None when one of it is large or did not come this way."""
    raws: list[Buffer] = []
    for item in batch:
        if item.raw is None or len(item.raw) > MOST_BYTES:
            return None
        raws.append(item.raw)
    first = batch[0].express
    assert first is not None
    if len(first.spans) == 1:
        # Nothing but the one tensor was brought along.
        name, dtype, shape, _, _ = first.spans[0]
        return {name: np.frombuffer(b"".join(raws), dtype).reshape(-1, *shape[1:])}
    found: dict[str, Array] = {}
    for at, (name, dtype, shape, _, _) in enumerate(first.spans):
        places = [item.express.spans[at] for item in batch if item.express is not None]
        pieces = [raw[place[3] : place[4]] for raw, place in zip(raws, places, strict=True)]
        found[name] = np.frombuffer(b"".join(pieces), dtype).reshape(-1, *shape[1:])
    return found


def answer_raw(
    batch: Sequence[Pending],
    rows: int,
    outputs: Mapping[str, Array],
    started_ns: int,
    statistics: Statistics,
) -> bool:
    """Give each request of a batch its bytes of the outputs; false: it must go the long way."""
    first = batch[0].express
    now_ns = time.monotonic_ns()
    if first is None or not _alike(batch, first, now_ns / _NS):
        return False
    whole = len(batch) == 1
    found: list[Array] = []
    size = 0
    for name in first.wanted:
        array = outputs.get(name)
        if array is None or array.dtype.hasobject:
            return False
        if not whole and not (array.ndim and rows and len(array) == rows):
            return False
        size += array.nbytes
        found.append(array)
    if first.standing is not None:
        if not _place_outputs(batch, found):
            return False
        blobs = [b""] * len(found)
    elif size > MOST_BYTES * len(batch):
        return False
    else:
        blobs = [array.tobytes() for array in found]
    arrived_ns = [item.arrived_ns for item in batch if item.reply is not None]
    statistics.record_successes(arrived_ns, started_ns, now_ns)
    shapes = tuple([array.shape for array in found])
    if first.added:
        shapes = tuple([own + ones for own, ones in zip(shapes, first.added, strict=True)])
    if not whole:
        _hand_out(batch, blobs, shapes, rows)
    elif arrived_ns:
        _hand_over(batch[0], shapes, blobs)
    return True


def _alike(batch: Sequence[Pending], first: Express, now: float) -> bool:
    """Whether all of a batch came this way, want the same at such a place, and are in time."""
    shared = first.standing is not None
    for item in batch:
        express = item.express
        if express is None or express.wanted != first.wanted:
            return False
        if (express.standing is not None) is not shared:
            return False
        if item.deadline and now > item.deadline:
            return False
    return True


def _place_outputs(batch: Sequence[Pending], arrays: Sequence[Array]) -> bool:
    """Put what a batch made where its requests want it; false, and nothing put, if that cannot be.

    What does not fit, the long way refuses.
    """
    first = batch[0].express
    assert first is not None
    rules = first.servable.signature.outputs
    for name, array in zip(first.wanted, arrays, strict=True):
        if array.dtype != NUMPY[rules[name].datatype]:
            return False
    parts: list[tuple[Standing, str, Array]] = []
    stop = 0
    for item in batch:
        start, stop = stop, stop + item.rows
        express = item.express
        if item.reply is None or express is None or express.standing is None:
            continue
        for name, array in zip(first.wanted, arrays, strict=True):
            part = array if len(batch) == 1 else array[start:stop]
            if not express.standing.has_room(name, part):
                return False
            parts.append((express.standing, name, part))
    for standing, name, part in parts:
        standing.put(name, part)
    # The long way tells whose memory was taken away meanwhile.
    return not GUARD.losses or all(standing.whole for standing, _, _ in parts)


def _hand_out(
    batch: Sequence[Pending], blobs: list[bytes], shapes: tuple[Dims, ...], rows: int
) -> None:
    """Cut what a batch made into the parts of its requests."""
    each = [len(blob) // rows for blob in blobs]
    own: dict[int, tuple[Dims, ...]] = {}
    stop = 0
    for item in batch:
        start, stop = stop, stop + item.rows
        if item.reply is None:
            continue
        shape = own.get(item.rows)
        if shape is None:
            shape = own[item.rows] = tuple([(item.rows, *dims[1:]) for dims in shapes])
        if len(blobs) == 1:
            parts = [blobs[0][start * each[0] : stop * each[0]]]
        else:
            ends = zip(blobs, each, strict=True)
            parts = [blob[start * size : stop * size] for blob, size in ends]
        _hand_over(item, shape, parts)


def _hand_over(item: Pending, shapes: tuple[Dims, ...], parts: list[bytes]) -> None:
    express, target = item.express, item.target
    assert express is not None
    if express.standing is not None:
        target = target.returned()
    # The bytes may be a view of a receive buffer: let go before it is used again.
    item.reply, item.target, item.raw, item.arrays = None, None, None, {}
    try:
        express.send(target, shapes, parts, item.request.id)
    except Exception:  # noqa: BLE001 - whatever it is, the batch's others still count
        _log.exception("a transport could not take an answer")
