"""A slot of a model host: what the time counts as that a batch spent in it."""

import asyncio
import os
import time

import numpy as np

from tuili.backends.host_messages import Done, SlotMemory
from tuili.server.execution.pending import Pending
from tuili.server.execution.slots import HostSlot
from tuili.server.protocol.messages import InferRequest


class Owner:
    """A host at the run of another slot."""

    name, run_timeout_s, by_request, is_running = "m", 0.0, False, True

    def send(self, order):
        self.order = order

    def runs(self, slot):
        return False


def test_the_wait_behind_another_run_is_none_of_the_models_own():
    async def scenario():
        owner, outcomes = Owner(), []
        arrays = {"x": np.ones((1, 1), np.float32)}
        began = time.monotonic_ns()
        request = InferRequest("m", [])
        pending = Pending(request, outcomes.append, arrays, 1, (), 0, began, 0.0, 0.0, owner)
        slot = HostSlot(owner, 0)
        slot.attach(SlotMemory(os.memfd_create("slot")))
        slot.run_beside(asyncio.get_running_loop(), [pending], outcomes.append)
        sent = time.monotonic_ns()
        slot.run_begins()
        slot.finish(Done(0, owner.order.capacity, 5_000, owner.order.tensors))
        (found,) = outcomes
        assert found.joined_ns > sent
        assert found.done_ns == found.joined_ns + 5_000
        assert 0 <= found.joined_ns - found.started_ns <= sent - began
        assert found.outputs["x"].tolist() == [[1.0]]

    asyncio.run(scenario())
