"""Calls of a Triton Python model to other models: business logic scripting, and the requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tuili.backends.host_calls import RUN, Call, Called, Caller
from tuili.backends.triton_tensors import (
    Forward,
    InferenceResponse,
    ResponseSender,
    Tensor,
    TritonError,
    TritonModelException,
    checked_parameters,
)

_callers: list[Caller] = []


def use(caller: Caller) -> None:
    """Let models in this process call their server."""
    _callers[:] = [caller]


def _caller() -> Caller:
    if not _callers:
        raise TritonModelException(
            "calls to other models need a model host: set the model's parameter 'isolation' to "
            "'process', and do not call on import"
        )
    return _callers[0]


def _a(kind: Any, value: Any) -> Any:
    """An argument of that kind; TypeError for others, as from Triton's compiled classes."""
    if not isinstance(value, kind):
        raise TypeError(f"incompatible constructor arguments: expected {kind}, got {value!r}")
    return value


class InferenceTrace:
    """A trace that a request hands on; traces are the server's affair here."""


class InferenceRequest:
    """A request: one that `execute` gets, or one that a model makes for another model."""

    def __init__(  # noqa: PLR0913, PLR0917 - Triton's own signature
        self,
        request_id: str = "",
        correlation_id: int | str = 0,
        inputs: Iterable[Tensor] | None = None,
        requested_output_names: Sequence[str] | None = None,
        model_name: str | None = None,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: object = None,
        trace: object = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        received: Mapping[str, Any] | None = None,
    ) -> None:
        """TypeError without inputs, outputs or model; `received` are the parameters of a client."""
        self._id, self._correlation_id = _a(str, request_id), _a((int, str), correlation_id)
        self._inputs = list(_a(Iterable, inputs))
        if any(tensor is None for tensor in self._inputs):  # pyright: ignore[reportUnnecessaryComparison]
            raise TritonModelException("Input tensor for inference request should not be None.")
        self._outputs = [_a(str, name) for name in _a(Iterable, requested_output_names)]
        self._model, self._version = _a(str, model_name), _a(int, model_version)
        self._flags, self._timeout = _a(int, flags), _a(int, timeout)
        self._parameters = checked_parameters(parameters) if received is None else dict(received)
        self._cancelled = cancelled
        self._sender: ResponseSender | None = None
        self.release_flags = 1
        # Where answers go that the model sends by itself; None: they wait to be asked for.
        self.forward: Forward | None = None
        self.in_background = False  # a coroutine of the model goes on with it

    # ---- what it says
    def inputs(self) -> list[Tensor]:
        """All inputs."""
        return self._inputs

    def model_name(self) -> str:
        """The name of the model that is asked."""
        return self._model

    def requested_output_names(self) -> list[str]:
        """The outputs that are wanted."""
        return self._outputs

    def request_id(self) -> str:
        """The client's id of the request."""
        return self._id

    def correlation_id(self) -> int | str:
        """The sequence's id; 0 outside sequences."""
        return self._correlation_id

    def flags(self) -> int:
        """Whether the sequence starts or ends with it."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Say whether the sequence starts or ends with it."""
        self._flags = flags

    def timeout(self) -> int:
        """Microseconds that it may wait; 0: for ever."""
        return self._timeout

    def parameters(self) -> str:
        """The client's parameters as JSON text."""
        return json.dumps(self._parameters)

    def trace(self) -> Any:
        """The trace to hand on to requests that come of this one."""
        return InferenceTrace()

    def preferred_memory(self) -> None:
        """Accepted and without effect: there is main memory only."""

    # ---- how it is answered
    def get_response_sender(self) -> ResponseSender:
        """How to answer by oneself."""
        if self._sender is None:
            self._sender = ResponseSender(self._cancelled, self.forward)
        return self._sender

    @property
    def sender(self) -> ResponseSender | None:
        """The sender, if the model asked for it."""
        return self._sender

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled()

    def set_release_flags(self, flags: int) -> None:
        """With TRITONSERVER_REQUEST_RELEASE_RESCHEDULE it is executed once more."""
        self.release_flags = flags

    # ---- to another model
    def exec(self, decoupled: bool = False, execution_timeout: float | None = None) -> Any:
        """The answer of the model that this request is for; `decoupled`: an iterator of answers.

        As in Triton the iterator is there when the first answer is.
        """
        return self._begin(decoupled, awaited=True)[1]()

    def async_exec(self, decoupled: bool = False) -> Awaitable[Any]:
        """As `exec`, to be awaited; the request is sent now."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def told() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(arrived.set)

        call, take = self._begin(decoupled, told)

        async def first() -> Any:
            await arrived.wait()
            return take()

        return _Sent(first(), lambda: _caller().awaits(call))

    def _begin(
        self, decoupled: bool, told: Callable[[], None] | None = None, *, awaited: bool = False
    ) -> tuple[Call, Callable[[], Any]]:
        """Send it; the result waits for the first answer, and `told` is called with each."""
        call = Call(
            0,
            "stream" if decoupled else "infer",
            self._model,
            "" if self._version < 1 else str(self._version),
            self._id,
            self._correlation_id,
            self._flags,
            self._timeout,
            self._parameters,
            self._outputs,
            run=RUN.get(),
            awaited=awaited,
        )
        tensors = {tensor.name(): tensor.as_numpy() for tensor in self._inputs}
        caller = _caller()
        answers = caller.call(call, tensors, told)
        if decoupled:
            return call, lambda: InferenceResponseIterator(caller, call, answers)
        return call, lambda: _response(*answers())


class _Sent(asyncio.Task[Any]):
    """A call on its way, which tells when somebody begins to wait for its answer."""

    def __init__(self, answer: Coroutine[Any, Any, Any], awaited: Callable[[], None]) -> None:
        self._on_awaited = awaited
        super().__init__(answer, loop=asyncio.get_running_loop())

    def add_done_callback(self, callback: Any, /, *, context: Any = None) -> None:
        """Who waits for a task does it by this."""
        self._on_awaited()
        super().add_done_callback(callback, context=context)


class InferenceResponseIterator:
    """The answers of a model that answers any number of times.

    As in Triton the last one has no outputs where the model said that it is done after its last
    answer and not with it, and a second iteration begins with the first answer again.
    """

    def __init__(self, caller: Caller, call: Call, answers: Callable[[], Any]) -> None:
        self._caller, self._call, self._answers = caller, call, answers
        self._ended = False
        self._got: list[InferenceResponse] = []
        self._at = 0
        self._take()

    def __iter__(self) -> Iterator[InferenceResponse]:
        if self._ended and self._at == len(self._got):
            self._at = 0
        return self

    def __next__(self) -> InferenceResponse:
        if self._at == len(self._got):
            if self._ended:
                raise StopIteration
            self._take()
        self._at += 1
        return self._got[self._at - 1]

    def _take(self) -> None:
        called, tensors = self._answers()
        self._ended = called.final
        self._got.append(_response(called, tensors))

    def cancel(self) -> None:
        """Tell the model that its answers are not wanted; what it does about it is its affair."""
        if not self._ended:
            self._caller.cancel(self._call)


def _response(called: Called, tensors: Mapping[str, Any]) -> InferenceResponse:
    if called.kind:
        return InferenceResponse(error=TritonError.of(called.text, called.kind))
    made = [Tensor(name, array) for name, array in tensors.items()]
    return InferenceResponse(made, parameters=called.parameters)


def ask(kind: Any, model: str, version: str = "", parameters: Any = None) -> Called:
    """What the server says to a call without tensors; its error is raised."""
    call = Call(0, kind, model, version, parameters=parameters or {}, run=RUN.get(), awaited=True)
    called, _ = _caller().call(call, {})()
    if called.kind:
        raise TritonModelException(called.text)
    return called


def load_model(model_name: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
    """Load a model of the server's repository, perhaps with another configuration or files."""
    parameters: dict[str, Any] = dict(files or {})
    if config:
        parameters["config"] = config
    ask("load", model_name, parameters=parameters)


def unload_model(model_name: str) -> None:
    """Unload a model."""
    ask("unload", model_name)


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether a model answers."""
    return ask("ready", model_name, str(model_version)).text == "ready"
