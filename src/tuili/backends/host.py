"""A model host: a process that owns one model and runs it for a server.

Started as `python -m tuili.backends.host SOCKET`. It ends when the server's end of the socket does.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
import traceback
from collections import deque
from pathlib import Path

import msgspec

from tuili import backends
from tuili.backends import BackendOptions, Executable, stream
from tuili.backends.host_messages import (
    MAX_MESSAGE,
    Answer,
    Done,
    Failed,
    Load,
    Loaded,
    More,
    Order,
    Part,
    Run,
    SlotMemory,
    from_specs,
    to_specs,
)
from tuili.errors import InternalError, TuiliError, UserError

_decode = msgspec.msgpack.Decoder(Order).decode
_encode = msgspec.msgpack.Encoder().encode


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    # The server decides when it ends; Ctrl-C in a terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prefer_to_be_killed()
    with socket.socket(fileno=int(sys.argv[1])) as server:
        order = _receive(server)
        if not isinstance(order, Load):
            return
        try:
            model = _load(order)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is told
            _send(server, _failure(-1, error))
            return
        _send(server, Loaded(to_specs(model.inputs), to_specs(model.outputs)))
        slots = [SlotMemory(descriptor) for descriptor in order.slots]
        # Runs of other slots may arrive while one waits for its parts to be taken.
        waiting: deque[Run] = deque()
        while isinstance(order := waiting.popleft() if waiting else _receive(server), Run):
            if order.parts:
                _send(server, _run_parts(server, model, slots[order.slot], order, waiting))
            else:
                _send(server, _run(model, slots[order.slot], order))


def _load(order: Load) -> Executable:
    options = BackendOptions(
        order.threads,
        order.parameters,
        from_specs(order.inputs),
        from_specs(order.outputs),
        order.max_batch_size,
        order.decoupled,
    )
    return backends.load(order.backend, Path(order.path), options)


def _run(model: Executable, slot: SlotMemory, order: Run) -> Answer:
    try:
        slot.remap(order.capacity)
        inputs = {tensor.name: slot.read(tensor) for tensor in order.tensors}
        started = time.monotonic_ns()
        outputs = model.run(inputs)
        run_ns = time.monotonic_ns() - started
        end = max((tensor.offset + tensor.size for tensor in order.tensors), default=0)
        tensors = slot.write({name: [array] for name, array in outputs.items()}, end)
        return Done(order.slot, slot.capacity, run_ns, tensors)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server is told
        return _failure(order.slot, error)


def _run_parts(
    server: socket.socket, model: Executable, slot: SlotMemory, order: Run, waiting: deque[Run]
) -> Answer:
    """Send each part when the one before was taken."""
    started = time.monotonic_ns()
    try:
        slot.remap(order.capacity)
        # The parts overwrite the inputs.
        inputs = {tensor.name: slot.read(tensor).copy() for tensor in order.tensors}
        for outputs in stream(model, inputs):
            tensors = slot.write({name: [array] for name, array in outputs.items()})
            _send(server, Part(order.slot, slot.capacity, tensors))
            while isinstance(more := _receive(server), Run):
                waiting.append(more)
            if not isinstance(more, More) or more.stop:
                break
        return Done(order.slot, slot.capacity, time.monotonic_ns() - started, [])
    except Exception as error:  # noqa: BLE001 - whatever it is, the server is told
        return _failure(order.slot, error)


def _failure(slot: int, error: Exception) -> Failed:
    if isinstance(error, TuiliError):
        return Failed(slot, str(error), isinstance(error, UserError))
    text = "".join(traceback.format_exception(error)[-3:])
    return Failed(slot, f"{type(error).__name__}: {error}\n{text}"[:4000], user=False)


def _receive(server: socket.socket) -> Order | None:
    try:
        raw = server.recv(MAX_MESSAGE)
    except ConnectionResetError:
        return None
    return _decode(raw) if raw else None


def _send(server: socket.socket, answer: Answer) -> None:
    raw = _encode(answer)
    if len(raw) > MAX_MESSAGE:
        raise InternalError(f"an answer of {len(raw)} bytes does not fit in a message")
    try:
        server.send(raw)
    except (BrokenPipeError, ConnectionResetError):
        # The server is gone; so is the reason to be.
        sys.exit(0)


def _prefer_to_be_killed() -> None:
    """When memory runs out, a model host should go before its server."""
    # Where this is not allowed, or not Linux, the kernel chooses by size.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


if __name__ == "__main__":
    main()
