"""Answers what the models in hosts ask their server for: other models, loading, readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from tuili.backends import host_calls
from tuili.backends.host_calls import Awaited, Call, Called, Unwanted
from tuili.backends.requests import kind_of
from tuili.errors import Cancelled, InternalError, TuiliError, Unavailable
from tuili.server.execution.hosts import Host
from tuili.server.execution.open_calls import OpenCall, OpenCalls
from tuili.server.execution.outbox import Outbox
from tuili.server.execution.pending import Pending, Reply, StreamReply
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    InputTensor,
    Parameters,
    RequestedOutput,
)
from tuili.server.readiness import Judged, Verdict, then
from tuili.server.scheduling.loads import LoadOf, Loads
from tuili.server.telemetry.custom import CustomMetrics
from tuili.tensors import DType


class Ticket(Protocol):
    """A request in progress."""

    def cancel(self) -> None: ...


class Server(Protocol):
    """What a model may ask for."""

    @property
    def custom_metrics(self) -> CustomMetrics: ...
    @property
    def loads(self) -> Loads: ...

    def submit(self, request: InferRequest, reply: Reply) -> Ticket: ...
    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket: ...
    def model_verdict(self, model: str, version: str = "") -> Judged: ...
    async def repository_load(
        self, model: str, parameters: dict[str, Any] | None = None
    ) -> None: ...
    async def repository_dismiss(self, model: str) -> None: ...


class CallAnswerer:
    """Takes the calls of all hosts of a server; answers go back on the socket of the call."""

    def __init__(self, server: Server, waits: Callable[[Host], None]) -> None:
        """`waits` hears of each host that waits for a load, maybe while it loads its own model."""
        self._server = server
        self._waits = waits
        self._open: dict[tuple[int, int], Ticket] = {}
        self._calls: dict[tuple[int, int], OpenCall] = {}
        self.open_calls = OpenCalls(server.loads)
        self._tasks: set[asyncio.Future[None]] = set()

    def listener(self) -> Callable[[Outbox, Host], None]:
        """What to give the socket of a host, from any thread; it is listened to on this loop."""
        loop = asyncio.get_running_loop()

        def listen(calls: Outbox, host: Host) -> None:
            number = calls.fileno()
            reader = partial(self._on_readable, loop, calls, host)
            loop.call_soon_threadsafe(loop.add_reader, number, reader)

        return listen

    def _on_readable(self, loop: asyncio.AbstractEventLoop, calls: Outbox, host: Host) -> None:
        try:
            received = host_calls.receive_call(calls.socket)
        except BlockingIOError:
            return
        except msgspec.MsgspecError as error:
            host.spoke_nonsense(error)
            return
        if received is None:
            loop.remove_reader(calls.fileno())
            self._gone(calls)
            calls.close()
        else:
            call, tensors = received
            if isinstance(call, Unwanted):
                self._unwanted(calls, call)
                return
            if isinstance(call, Awaited):
                self._awaited(calls, call)
                return
            try:
                if isinstance(tensors, InternalError):
                    raise tensors
                self._take(calls, call, tensors, host)
            except Exception as error:  # noqa: BLE001 - whatever it is, the model is told
                _send(calls, call, of_tree(error, "a call could not be taken"), True)

    def _take(self, calls: Outbox, call: Call, tensors: dict[str, Array], host: Host) -> None:
        """Begin to answer one call."""
        if call.kind in ("infer", "stream"):
            self._infer(calls, call, tensors, host)
        elif call.kind == "ready":
            self._ready(calls, call)
        elif call.kind == "metric":
            self._metric(calls, call)
        else:
            self._change(calls, call, host)

    def _unwanted(self, calls: Outbox, call: Unwanted) -> None:
        """The model that answers hears of it, and ends the answers in its own way if it can."""
        key = (calls.fileno(), call.number)
        ticket = self._open.get(key)
        if isinstance(ticket, Pending):
            ticket.withdraw()
        elif ticket is not None:
            self._end(calls, call.number, Cancelled("the request was cancelled"))

    def _awaited(self, calls: Outbox, call: Awaited) -> None:
        opened = self._calls.get((calls.fileno(), call.number))
        if opened is not None:
            opened.awaited()

    def _end(self, calls: Outbox, number: int, error: TuiliError) -> None:
        """A call that is under way ends with an error."""
        key = (calls.fileno(), number)
        ticket = self._open.pop(key, None)
        if ticket is not None:
            ticket.cancel()
            self._calls.pop(key).over()
            calls.send(Called(number, text=str(error), kind=kind_of(error)))

    def _gone(self, calls: Outbox) -> None:
        """A host went: what it asked for is not wanted any more."""
        number = calls.fileno()
        self._server.custom_metrics.gone(number)
        for key in [key for key in self._open if key[0] == number]:
            self._open.pop(key).cancel()
        for key in [key for key in self._calls if key[0] == number]:
            self._calls.pop(key).over()

    def _infer(self, calls: Outbox, call: Call, tensors: dict[str, Array], host: Host) -> None:
        inputs = [
            InputTensor(name, DType.of(array.dtype).kserve, array.shape, array)
            for name, array in tensors.items()
        ]
        outputs = [RequestedOutput(name) for name in call.outputs] or None
        request = InferRequest(
            call.model, inputs, call.version, call.id, outputs, _parameters(call) or None
        )
        key = (calls.fileno(), call.number)
        request.call = opened = self.open_calls.begin(
            host, call.run, lambda why: self._end(calls, call.number, Unavailable(why))
        )
        done = False

        def answer(given: InferResponse | TuiliError | None, final: bool) -> None:
            nonlocal done
            if final:
                done = True
                self._open.pop(key, None)
                self._calls.pop(key, None)
                opened.over()
            _send(calls, call, given, final)

        if call.kind == "stream":
            ticket = self._server.submit_stream(request, answer)
        else:
            ticket = self._server.submit(request, partial(answer, final=True))
        if not done:
            self._open[key], self._calls[key] = ticket, opened
            if call.awaited:
                opened.awaited()

    def _ready(self, calls: Outbox, call: Call) -> None:
        def answer(found: Verdict) -> None:
            calls.send(Called(call.number, text="ready" if found.ready else ""))

        coming = then(self._server.model_verdict(call.model, call.version), answer)
        if coming is not None:
            self._keep(coming)

    def _metric(self, calls: Outbox, call: Call) -> None:
        found = _act(self._server.custom_metrics, calls.fileno(), call.model, call.parameters)
        calls.send(Called(call.number, text=repr(found)))

    def _change(self, calls: Outbox, call: Call, host: Host) -> None:
        """Load or unload a model: the one who asks waits until nobody else is loading it."""
        key = (calls.fileno(), call.number)

        def refuse(why: str) -> None:
            task.cancel()
            calls.send(Called(call.number, text=why, kind=kind_of(Unavailable(why))))

        def over(_: object) -> None:
            if self._calls.get(key) is opened:
                del self._calls[key]
            opened.over()

        opened = self._calls[key] = self.open_calls.begin(host, call.run, refuse)
        # Whether it closes a ring is seen before the task begins, which so has nothing to undo.
        opened.enter(LoadOf(self._server.loads, call.model, f"{call.kind}ed"))
        if call.awaited:
            opened.awaited()
            self._waits(host)
        task = self._keep(self._repository(calls, call))
        task.add_done_callback(over)

    def _keep(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task: asyncio.Future[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _repository(self, calls: Outbox, call: Call) -> None:
        work: Callable[[], Awaitable[None]] = partial(self._server.repository_dismiss, call.model)
        if call.kind == "load":
            work = partial(self._server.repository_load, call.model, call.parameters or None)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the model is told
            _send(calls, call, of_tree(error, "a call could not be answered"), True)
        else:
            calls.send(Called(call.number))


def _act(metrics: CustomMetrics, owner: int, name: str, told: Mapping[str, Any]) -> float:
    """What a model does with metrics of its own; the value of the metric, or 0."""
    act, labels = told["act"], told.get("labels", {})
    if act == "join":
        metrics.join(owner, name, told["kind"], told["text"])
    elif act == "leave":
        metrics.leave(owner, name)
    elif act == "add":
        metrics.add(owner, name, labels, told["buckets"])
    elif act == "remove":
        metrics.remove(owner, name, labels)
    else:
        return metrics.act(name, labels, act, told["amount"])
    return 0.0


def _parameters(call: Call) -> Parameters:
    """The request's parameters with what the protocol carries among them."""
    found: Parameters = dict(call.parameters)
    if call.sequence:
        found["sequence_id"] = call.sequence
    if call.flags & 1:
        found["sequence_start"] = True
    if call.flags & 2:
        found["sequence_end"] = True
    if call.timeout_us:
        found["timeout"] = call.timeout_us
    return found


def _send(
    calls: Outbox, call: Call, answer: InferResponse | TuiliError | None, final: bool
) -> None:
    if answer is None:
        calls.send(Called(call.number, final))
    elif isinstance(answer, TuiliError):
        calls.send(Called(call.number, final, text=str(answer), kind=kind_of(answer)))
    else:
        arrays = {o.name: o.data for o in answer.outputs if o.data is not None}
        try:
            laid, capacity, descriptor, enclosed = host_calls.pack(arrays)
        except OSError as error:
            none_left = InternalError(f"no memory for the tensors of an answer: {error}")
            calls.send(Called(call.number, final, text=str(none_left), kind=kind_of(none_left)))
            return
        told = Called(
            call.number, final, parameters=answer.parameters or {}, tensors=laid,
            capacity=capacity, version=answer.version, enclosed=enclosed,
        )  # fmt: skip
        calls.send(told, descriptor)
