"""A model host: a process that owns one model and runs it for a server.

Forked by `fork_server`, or started as `python -m tuili.backends.host SOCKET`. It ends when the
server's end of the socket does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Protocol, cast

import msgspec

from tuili import backends
from tuili.backends import BackendOptions, Executable, host_letters, stream
from tuili.backends.host_calls import LOADING, RUN, Caller
from tuili.backends.host_messages import (
    END_S,
    MAX_MESSAGE,
    Answer,
    Done,
    DoneEach,
    Failed,
    Load,
    Loaded,
    One,
    Order,
    Readied,
    Run,
    SlotMemory,
    Spilled,
    from_specs,
    to_specs,
)
from tuili.backends.host_streams import Outgoing
from tuili.backends.kept_memory import keep_memory
from tuili.backends.readiness import answer_beside
from tuili.backends.requests import Answered, ByRequest, kind_of
from tuili.errors import TuiliError

_KEPT_BYTES = 64 << 20
_decode = msgspec.msgpack.Decoder(Order | Spilled).decode


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    sys.exit(run(int(sys.argv[1])))


def run(number: int) -> int:
    """Serve the socket of that descriptor; the exit status."""
    del sys.argv[1:]  # ours: a model that reads arguments shall find none
    # The server decides when it ends; Ctrl-C in a terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prefer_to_be_killed()
    keep_memory(_KEPT_BYTES)
    with socket.socket(fileno=number) as server:
        order = _receive(server)
        if not isinstance(order, Load):
            return 0
        calls = socket.socket(fileno=order.calls)
        # A process that the model forks may outlive this one, whose end is seen by these.
        os.register_at_fork(after_in_child=lambda: (server.close(), calls.close()))
        caller = Caller(calls)
        loading = RUN.set(LOADING)
        try:
            with _in_the_background():
                model = _load(order, caller)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the server is told
            _send(server, host_letters.encode(_failure(-1, error)))
            return 0
        RUN.reset(loading)
        by_request = hasattr(model, "run_requests")
        loaded = Loaded(to_specs(model.inputs), to_specs(model.outputs), by_request)
        loaded.config_json = getattr(model, "config_json", "")
        loaded.says_ready = _answers_readiness(server, model, caller)
        loaded.has_end = bool(getattr(model, "has_end", False))
        _send(server, host_letters.encode(loaded))
        child = _Child(server, model, [SlotMemory(each) for each in order.slots], caller)
        child.serve()
        if loaded.has_end:
            _let_end(model)
    return 0


def _load(order: Load, caller: Caller) -> Executable:
    if order.backend == "python":
        from tuili.backends import triton_calls

        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
        )
        caller.start()
        triton_calls.use(caller)
    options = BackendOptions(
        order.threads,
        order.parameters,
        from_specs(order.inputs),
        from_specs(order.outputs),
        order.max_batch_size,
        order.decoupled,
        order.instance,
        order.config_json,
    )
    return backends.load(order.backend, Path(os.fsdecode(order.path)), options)


def _let_end(model: Executable) -> None:
    """Let a model end itself, however the server ended; one that does not is ended."""
    late = threading.Timer(END_S, os._exit, (1,))
    late.daemon = True
    late.start()
    try:
        cast("Closing", model).close()
    except BaseException:  # noqa: BLE001 - the user's code; nobody is left to be told
        traceback.print_exc()


def _answers_readiness(server: socket.socket, model: Executable, caller: Caller) -> bool:
    """Answer when the model is asked whether it is ready; false when it cannot tell."""
    reason: Callable[[], str] | None = getattr(model, "why_not_ready", None)
    if reason is None:
        return False

    def tell(why: str) -> None:
        # When the server is gone, the loop of the host sees it too.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            host_letters.send(server, Readied(why))

    caller.on_ask_ready = lambda: answer_beside(reason, tell)
    return True


class Closing(Protocol):
    """A model that has something to do at its end."""

    def close(self) -> None: ...


class _Child:
    """The loop of a host: one order after the other."""

    def __init__(
        self, server: socket.socket, model: Executable, slots: list[SlotMemory], caller: Caller
    ) -> None:
        self._server = server
        self._model = model
        self._by_request = cast("ByRequest", model)
        self._slots = slots
        self._caller = caller
        self._runs = 0

    def serve(self) -> None:
        """Until the server is gone."""
        while (order := _receive(self._server)) is not None:
            if isinstance(order, Spilled):
                order = _decode(self._slots[order.slot].spilled(order))
            assert isinstance(order, Run)
            self._runs += 1
            RUN.set(self._runs)
            self._send(order.slot, self._answer(order))

    def _answer(self, order: Run) -> Answer:
        try:
            self._slots[order.slot].remap(order.capacity)
            if order.streams:
                return self._begin_streams(self._slots[order.slot], order)
            if order.told:
                return self._run_each(self._slots[order.slot], order)
            return self._run(self._slots[order.slot], order)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the server is told
            # As in Triton also a SystemExit or a CancelledError, which say nothing of the process.
            return _failure(order.slot, error)

    def _send(self, slot: int, answer: Answer) -> None:
        try:
            raw = self._encoded(self._slots[slot], answer)
        except Exception as error:  # noqa: BLE001 - what cannot be sent, such as parameters
            raw = host_letters.encode(_failure(slot, error))
        _send(self._server, raw)

    def _encoded(self, memory: SlotMemory, answer: Answer) -> bytes:
        if isinstance(answer, Done):
            return host_letters.laid(answer, answer.tensors, memory)
        if isinstance(answer, DoneEach):
            tensors = [tensor for one in answer.answers for tensor in one.tensors]
            return host_letters.laid(answer, tensors, memory)
        return host_letters.encode(answer)

    def _run(self, slot: SlotMemory, order: Run) -> Answer:
        inputs = {tensor.name: slot.read(tensor) for tensor in order.tensors}
        started = time.monotonic_ns()
        outputs = self._model.run(inputs)
        run_ns = time.monotonic_ns() - started
        tensors = slot.write({name: [array] for name, array in outputs.items()}, _end(order))
        return Done(order.slot, slot.capacity, run_ns, tensors)

    def _run_each(self, slot: SlotMemory, order: Run) -> Answer:
        inputs = {tensor.name: slot.read(tensor) for tensor in order.tensors}
        started = time.monotonic_ns()
        answers = self._by_request.run_requests(inputs, order.told, self._cancelled(order.slot))
        run_ns = time.monotonic_ns() - started
        laid = slot.write_each([answer.outputs for answer in answers], _end(order))
        for one, answer in zip(laid, answers, strict=True):
            _describe(one, answer)
        return DoneEach(order.slot, slot.capacity, run_ns, laid)

    def _begin_streams(self, slot: SlotMemory, order: Run) -> Answer:
        """Let the model take requests whose answers leave by themselves."""
        started = time.monotonic_ns()
        # The next run overwrites the inputs.
        inputs = {tensor.name: slot.read(tensor).copy() for tensor in order.tensors}
        outgoing = [
            Outgoing(self._server, self._caller, order.slot, number) for number in order.streams
        ]

        def cancelled(at: int) -> bool:
            return self._caller.is_cancelled(order.slot, order.streams[at])

        def send(at: int, answer: Answered | None, final: bool) -> None:
            outgoing[at].send(answer, final)

        try:
            if order.told:
                self._by_request.begin_streams(inputs, order.told, cancelled, send)
            else:
                for outputs in stream(self._model, inputs):
                    send(0, Answered(outputs), False)
                    if cancelled(0):
                        break
                send(0, None, True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the server is told
            failed = _failure(order.slot, error)
            for each in outgoing:
                each.fail(failed.kind, failed.text)
        if order.whole:
            for each in outgoing:
                each.wait()
        return Done(order.slot, slot.capacity, time.monotonic_ns() - started, [])

    def _cancelled(self, slot: int) -> Callable[[int], bool]:
        self._caller.fresh(slot)
        return lambda at: self._caller.is_cancelled(slot, at)


def _end(order: Run) -> int:
    """Where the inputs end in the slot."""
    return max((tensor.offset + tensor.size for tensor in order.tensors), default=0)


def _describe(one: One, answer: Answered) -> None:
    one.parameters = answer.parameters
    if answer.error is not None:
        one.kind, one.text = kind_of(answer.error), host_letters.text_of(answer.error)


def _failure(slot: int, error: BaseException) -> Failed:
    if isinstance(error, TuiliError):
        return Failed(slot, host_letters.text_of(error), kind_of(error))
    text = "".join(traceback.format_exception(error)[-3:])
    text = f"{type(error).__name__}: {host_letters.text_of(error)}\n{text}"[:4000]
    return Failed(slot, host_letters.text_of(text), "InternalError")


def _receive(server: socket.socket) -> Order | Spilled | None:
    try:
        raw = server.recv(MAX_MESSAGE)
    except ConnectionResetError:
        return None
    return _decode(raw) if raw else None


def _send(server: socket.socket, raw: bytes) -> None:
    try:
        server.send(raw)
    except (BrokenPipeError, ConnectionResetError):
        # The server is gone; so is the reason to be.
        sys.exit(0)


@contextlib.contextmanager
def _in_the_background() -> Generator[None]:
    """While it loads, this process does not preempt those that answer requests."""
    plain = os.sched_getscheduler(0) == os.SCHED_OTHER
    if plain:
        _schedule(os.SCHED_BATCH)
    try:
        yield
    finally:
        if plain:
            _schedule(os.SCHED_OTHER)


def _schedule(policy: int) -> None:
    """Set the policy of all threads; those that a model made inherited the one before."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))


def _prefer_to_be_killed() -> None:
    """When memory runs out, a model host should go before its server."""
    # Where this is not allowed, or not Linux, the kernel chooses by size.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


if __name__ == "__main__":
    main()
