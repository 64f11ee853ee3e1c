"""Standing: where the tensors of all requests with the same words lie in clients' memory.

What the words name is looked up and mapped once; a request then only says that it holds it, and
lets it go. It ends with the first of its regions that is unregistered or registered anew: for new
requests at once, and with the last of those that hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tuili.runtime.streaming import address_of, stream
from tuili.server.memory.region import Region
from tuili.server.memory.writing import write_output
from tuili.server.protocol.messages import Array, Parameters


class Standing:
    """The inputs as views of clients' memory, and the places of the outputs."""

    def __init__(
        self,
        regions: Sequence[Region],
        give_back: Callable[[Region], None],
        arrays: Mapping[str, Array],
        outputs: Mapping[str, memoryview],
    ) -> None:
        self.arrays = dict(arrays)
        self._outputs = dict(outputs)
        self._addresses = {name: address_of(view) for name, view in outputs.items()}
        self._regions = tuple(regions)
        self._give_back = give_back
        self._users = 0
        self._over = False
        for region in self._regions:
            region.standing.add(self)

    def hold(self) -> bool:
        """One more request begins to use it; false where its words mean something else now."""
        if self._over or not self.whole:
            return False
        for region in self._regions:
            region.holders += 1
        self._users += 1
        return True

    def release(self) -> None:
        """A request has ended."""
        self._users -= 1
        for region in self._regions:
            self._give_back(region)
        self._clear()

    def drop(self) -> None:
        """A region is another's, or nobody's: no new requests."""
        self._over = True
        self._clear()

    def _clear(self) -> None:
        if self._over and not self._users:
            # The last view of a region unmaps it.
            self.arrays, self._outputs, self._regions = {}, {}, ()

    @property
    def whole(self) -> bool:
        """Whether nobody took memory away."""
        return all(region.whole for region in self._regions)

    def has_room(self, name: str, array: Array) -> bool:
        """Whether an output fits where the words want it."""
        return array.nbytes <= len(self._outputs[name])

    def put(self, name: str, array: Array) -> None:
        """Put an output that has room where the words want it."""
        stream(self._outputs[name], array, self._addresses[name])

    def write(self, name: str, parameters: Parameters, array: Array, datatype: str) -> None:
        """As a lease's, for requests that go on the long way."""
        write_output(name, self._outputs[name], array, datatype)
        self.require_whole()

    def require_whole(self) -> None:
        """InvalidArgument where memory was taken away while a request used it."""
        for region in self._regions:
            region.require_whole()
