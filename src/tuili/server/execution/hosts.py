"""Model hosts: a model in a process of its own, started, watched and restarted by the server.

Theory of operation
- A `Host` owns a child process (`host_child.py`) and a few slots of shared memory. Two slots let
  the next batch be written while the child still runs the last one.
- Each slot is an instance to the batcher: it takes one batch, and is free again with its outcome.
- When the child dies (crash, OOM kill, hang past its time), the batches in its slots come back
  with `InstanceDied`, the slots are withdrawn, and a new child starts after the policy's delay.
  The servable retries each request once, alone, so that one poisonous request does not take
  others down.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from tuili.backends import Specs, host_calls, host_letters
from tuili.backends.host_messages import (
    MAX_MESSAGE,
    Answer,
    Ended,
    Failed,
    Load,
    Loaded,
    Part,
    Readied,
    Run,
    SlotMemory,
    Spilled,
    from_specs,
)
from tuili.errors import InvalidArgument, InvalidModel
from tuili.server.execution.host_child import HostChild, HostSpec
from tuili.server.execution.host_processes import is_readable
from tuili.server.execution.outbox import Outbox
from tuili.server.execution.readying import Readying
from tuili.server.execution.running import InstanceDied
from tuili.server.execution.slots import HostSlot
from tuili.server.protocol.messages import Array
from tuili.server.scheduling.restarts import RestartPolicy

_log = logging.getLogger("tuili.server")

_decode: Final = msgspec.msgpack.Decoder(Answer | Spilled).decode
_WATCH_S: Final = 1.0
_GO_S: Final = 0.001  # for the answers of one host, in one turn of the loop


class Host:
    """A model in a child process."""

    def __init__(
        self,
        spec: HostSpec,
        policy: RestartPolicy | None = None,
        on_calls: Callable[[Outbox, Host], None] | None = None,
    ) -> None:
        """`on_calls` gets the socket on which the child calls its server, maybe on a thread."""
        self.spec = spec
        self.policy = policy or RestartPolicy()
        self.inputs: Specs = ()
        self.outputs: Specs = ()
        self.by_request = False
        self.config_json = ""
        self.readying: Readying | None = None  # of a model that can tell
        self._has_end = False
        self.up = False
        self.reason = ""
        self.slots = [HostSlot(self, index) for index in range(spec.slots)]
        self._child: HostChild | None = None
        self._socket: socket.socket | None = None
        self._calls: Outbox | None = None
        self._on_calls = on_calls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: Callable[[], None] = _nothing
        self._timers: list[asyncio.TimerHandle] = []
        self._patience: asyncio.TimerHandle | None = None  # with a child that loads
        self._closed = False
        self._retiring = False  # over its memory limit: killed when its slots are empty
        self._sent: list[int] = []  # slots whose runs the child has, the present one first
        self._runs = 0  # how many this child was sent
        self.calling_run = 0  # the last one that asked other models
        self._released: set[int] = set()
        self._streams = False  # whether requests were sent that are answered any number of times

    @property
    def name(self) -> str:
        """The model and version that it runs."""
        return self.spec.name

    @property
    def is_running(self) -> bool:
        """Whether the child has a run to do."""
        return bool(self._sent)

    @property
    def current_run(self) -> int:
        """The number of the run that the child is at, from 1; 0 when it is at none.

        LOADING while it loads its model.
        """
        if self._sent:
            return self._runs - len(self._sent) + 1
        return 0 if self.up else host_calls.LOADING

    @property
    def calls_others(self) -> bool:
        """Whether the run that the child is at asks other models, and so may take for ever."""
        return self.calling_run != 0 and self.calling_run == self.current_run

    @property
    def run_timeout_s(self) -> float:
        """How long a run may take; 0 for ever."""
        return self.spec.run_timeout_s

    @property
    def load_timeout_s(self) -> float:
        """How long loading may take."""
        return self.spec.load_timeout_s

    # ---- before the loop: blocking
    def start(self) -> None:
        """Start the child and wait until its model is loaded."""
        self._spawn()
        try:
            answer = self.receive(self.spec.load_timeout_s)
        except InstanceDied as error:
            self.kill()
            raise InvalidModel(f"its model host died while loading: {error}") from error
        if isinstance(answer, Failed):
            self.kill()
            raise InvalidModel(answer.text)
        self._loaded(answer)

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """One run that waits, for warm-up."""
        return self.slots[0].run_now(inputs)

    def receive(self, timeout_s: float) -> Answer:
        """The child's next answer, waiting for it."""
        assert self._socket is not None
        if not is_readable(self._socket, timeout_s):
            self.kill()
            raise InstanceDied(f"no answer within {timeout_s:g} s")
        try:
            raw = self._socket.recv(MAX_MESSAGE)
        except ConnectionResetError:  # it died before it had read its order
            raw = b""
        if not raw:
            raise InstanceDied(self._cause_of_death())
        self._sent.clear()
        try:
            return self._opened(_decode(raw))
        except msgspec.MsgspecError as error:
            self.spoke_nonsense(error)
            raise InstanceDied(f"what it sent is no answer: {error}") from error

    # ---- on the loop
    def attach(self, changed: Callable[[], None]) -> None:
        """Let the running loop take over; `changed` is called when the host goes down or up."""
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._listen()
        if self.spec.max_rss_bytes:
            self._later(_WATCH_S, self._watch)

    def send(self, order: Load | Run) -> None:
        """Send an order; a child that is gone is noticed by its closed socket."""
        if self._socket is None:
            raise InstanceDied("the model host is not running", started=False)
        if isinstance(order, Run):
            raw = host_letters.laid(order, order.tensors, self.slots[order.slot].memory)
        else:
            raw = host_letters.encode(order)
        if len(raw) > MAX_MESSAGE:
            raise InvalidArgument(f"a configuration of {len(raw)} bytes is too long for a host")
        if isinstance(order, Run):
            self._sent.append(order.slot)
            self._runs += 1
            self._streams = self._streams or bool(order.streams)
        try:
            self._socket.send(raw)
        except (BrokenPipeError, ConnectionResetError):
            # Its end of file arrives at `_on_readable`, which brings the batch back.
            return

    def runs(self, slot: int) -> bool:
        """Whether the child is at that slot's run, not at one before it."""
        return self._sent[:1] == [slot]

    def tell_cancelled(self, slot: int, at: int) -> None:
        """Nobody waits for request `at` of the batch in a slot any more."""
        if self._calls is not None:
            self._calls.send(host_calls.Cancelled(slot, at))

    def _ask_ready(self) -> None:
        if self._calls is not None:
            self._calls.send(host_calls.AskReady())

    def hung(self) -> None:
        """A run took longer than allowed: the child is killed, and so declared dead."""
        _log.error("%s: no answer within %g s", self.spec.name, self.spec.run_timeout_s)
        self.kill()

    def spoke_nonsense(self, error: Exception) -> None:
        """Something in the child writes to our sockets: nothing that it says can be trusted."""
        _log.error("%s: ended, as what its process sent is no message: %s", self.spec.name, error)
        self.kill()

    def kill(self) -> None:
        """End the child at once."""
        if self._child is not None:
            self._child.process.kill()

    def abort(self) -> None:
        """End the child for good and at once, whatever it does."""
        self._closed = True
        self.kill()

    def release(self, slot: HostSlot) -> None:
        """A slot is not needed any more; with the last one the child goes."""
        self._released.add(id(slot))
        if len(self._released) == len(self.slots):
            self.close()

    def close(self) -> None:
        """End the child for good; may be called from any thread."""
        self._closed = True
        child = self._child
        told = self.up and self._has_end and self._socket is not None
        if child is not None and not (told and child.ends_itself()):
            child.process.kill()
        if child is not None:
            child.process.wait()
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._hang_up)
        else:
            self._hang_up()

    # ---- steps
    def _spawn(self) -> None:
        child = HostChild(self.spec)
        self._runs = self.calling_run = 0
        try:
            if self._on_calls is not None:
                self._on_calls(child.calls, self)
            for slot, descriptor in zip(self.slots, child.memories, strict=True):
                slot.attach(SlotMemory(descriptor))
        except BaseException:
            child.process.kill()
            child.hang_up(calls=True)
            raise
        self._child, self._socket, self._calls = child, child.socket, child.calls
        self.send(child.load())

    def _listen(self) -> None:
        assert self._loop is not None
        assert self._socket is not None
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        by = time.monotonic() + _GO_S
        while self._socket is not None:
            descriptors: list[int] = []
            try:
                if self._streams:  # whose answers have memory of their own
                    raw, descriptors, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 4)
                else:
                    raw = self._socket.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:
                raw = b""
            if not raw:
                self._died()
                return
            try:
                message = self._opened(_decode(host_letters.opened(raw, descriptors)))
                self._take(message, descriptors)
            except msgspec.MsgspecError as error:
                self.spoke_nonsense(error)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if not self._streams or time.monotonic() >= by:
                # A second answer is rare, and streams may be without end: the loop calls again.
                return

    def _opened(self, answer: Answer | Spilled) -> Answer:
        """The answer itself, where it came by the memory of its slot."""
        while isinstance(answer, Spilled):
            answer = _decode(self.slots[answer.slot].memory.spilled(answer))
        return answer

    def _take(self, answer: Answer, descriptors: Sequence[int]) -> None:
        if isinstance(answer, Readied):
            if self.readying is not None:
                self.readying.answered(answer.reason)
        elif isinstance(answer, Loaded):
            self._loaded(answer)
            _log.info("%s: model host is up again", self.spec.name)
            self._changed()
        elif isinstance(answer, Failed) and answer.slot < 0:
            _log.error("%s: model host cannot load: %s", self.spec.name, answer.text)
        else:
            if self.policy.in_a_row:
                self.policy.served()
            if isinstance(answer, Part):
                self.slots[answer.slot].take_part(answer, descriptors)
            elif isinstance(answer, Ended):
                self.slots[answer.slot].end_stream(answer)
                self._retire_if_idle()
            else:
                self._sent.remove(answer.slot)
                if self._sent:
                    self.slots[self._sent[0]].run_begins()
                self.slots[answer.slot].finish(answer)
                self._retire_if_idle()

    def _loaded(self, answer: Answer) -> None:
        assert isinstance(answer, Loaded)
        self.inputs, self.outputs = from_specs(answer.inputs), from_specs(answer.outputs)
        self._loads_no_more()
        self.up, self.reason, self._retiring = True, "", False
        self.by_request, self.config_json = answer.by_request, answer.config_json
        self._has_end = answer.has_end
        self.readying = Readying(self.spec.name, self._ask_ready) if answer.says_ready else None
        self.policy.started(time.monotonic())
        for slot in self.slots:
            slot.available = True

    def _died(self) -> None:
        """Bring back what was in the slots, and start anew after a while."""
        self._hang_up()
        if self._closed:
            return
        cause = self._cause_of_death()
        delay_s = self.policy.died(time.monotonic())
        self.up = False
        verb = "is given up for" if self.policy.open else "restarts in"
        self.reason = f"RESTARTING: its model host died ({cause}) and {verb} {delay_s:g} s"
        _log.error("%s: %s", self.spec.name, self.reason)
        for slot in self.slots:
            slot.available = False
        self._later(delay_s, self._restart)
        # First nobody uses the slots, then what was in them comes back, then those who wait hear
        # of it: with an open breaker they are refused.
        self._changed()
        running, self._sent = self._sent[:1], []
        for index, slot in enumerate(self.slots):
            text = f"the model host died: {cause}"
            slot.finish(InstanceDied(text, started=index in running))
            slot.lost(InstanceDied(text))
        self._changed()

    def _restart(self) -> None:
        if self._closed:
            return
        try:
            self._spawn()
        except OSError as error:  # such as no descriptors, no memory or no processes left
            delay_s = self.policy.died(time.monotonic())
            self.reason = f"RESTARTING: no model host starts ({error}); again in {delay_s:g} s"
            _log.error("%s: %s", self.spec.name, self.reason)
            self._later(delay_s, self._restart)
            self._changed()
            return
        self._listen()
        child = self._child

        def give_up() -> None:
            if not self.up and self._child is child:
                _log.error("%s: not loaded in %g s", self.spec.name, self.spec.load_timeout_s)
                self.kill()

        self._patience = self._later(self.spec.load_timeout_s, give_up)

    def _loads_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hang_up(self) -> None:
        self._loads_no_more()
        if self.readying is not None:
            self.readying.answered("its model host has ended")
        if self._socket is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
        assert self._child is not None
        # Whoever listens to its calls sees their end, and closes that socket.
        self._child.hang_up(calls=self._on_calls is None)
        self._socket = self._calls = None
        if self._closed:
            for timer in self._timers:
                timer.cancel()
            for slot in self.slots:
                # Now, not when the collector finds the host: the memory is as large as a batch.
                slot.attach(SlotMemory(-1))

    def _cause_of_death(self) -> str:
        assert self._child is not None
        return self._child.cause_of_death()

    def _watch(self) -> None:
        """Recycle a child that outgrew its limit, once it has finished what it has."""
        self._later(_WATCH_S, self._watch)
        rss = self.rss_bytes()
        if not self.up or self._retiring or rss <= self.spec.max_rss_bytes:
            return
        _log.warning("%s: recycled at %d MiB", self.spec.name, rss >> 20)
        # A busy model never rests by itself: it gets nothing new.
        self._retiring = True
        for slot in self.slots:
            slot.available = False
        self._changed()
        self._retire_if_idle()

    def _retire_if_idle(self) -> None:
        if self._retiring and not any(slot.busy for slot in self.slots):
            self.kill()

    def rss_bytes(self) -> int:
        """The child's resident memory; 0 when it is not there."""
        if self._child is None or not self.up:  # it may have no number yet
            return 0
        return self._child.rss_bytes()

    def _later(self, delay_s: float, call: Callable[[], Any]) -> asyncio.TimerHandle:
        assert self._loop is not None
        now = self._loop.time()
        self._timers = [each for each in self._timers if each.when() > now and not each.cancelled()]
        timer = self._loop.call_later(delay_s, call)
        self._timers.append(timer)
        return timer


def _nothing() -> None:
    """Nobody wants to know yet."""
