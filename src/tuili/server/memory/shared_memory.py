"""System shared memory of clients: regions by name, and the requests that hold them.

Off unless the server allows it, because a region lets a client name memory of this machine.

A request holds the regions that it names from its arrival to its end. As in Triton, a region that
is unregistered meanwhile stays until the last request that holds it has ended, and new requests may
still name it. Unlike there, its name can be registered anew at once: requests that came before keep
what they hold, those that come after get the new one.
"""

from __future__ import annotations

import re
import resource
from typing import Any, Final

from tuili.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    TuiliError,
    Unavailable,
    Unsupported,
)
from tuili.server.memory.region import Region
from tuili.server.memory.sigbus import GUARD
from tuili.server.memory.standing import Standing
from tuili.server.memory.writing import write_output
from tuili.server.protocol.datatypes import BYTE_SIZE, decode, element_count
from tuili.server.protocol.messages import Array, InferRequest, InputTensor, Parameters

DISABLED: Final = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)
_REGION: Final = "shared_memory_region"
# Regions at once. Each takes a descriptor and a mapping of the process; the connections of all
# clients need the former, its allocator the latter, of which the kernel gives 65,530.
_MOST: Final = 4096
_SHARE: Final = 4  # of the descriptors, where there are few
_KEY: Final = re.compile(r"/?[^/\0]{1,250}")
# Names of segments that belong to servers, ours and Triton's: never a client's.
_RESERVED: Final = ("triton_python_backend_shm_region_", "tuili_host_")


class Regions:
    """The regions that clients registered."""

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map `byte_size` bytes at `offset` of the POSIX object `key`."""
        self._require_allowed()
        there = self._regions.get(name)
        if there is not None and not there.unwanted:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        reserved = next((prefix for prefix in _RESERVED if key.strip("/").startswith(prefix)), "")
        if reserved:
            raise InvalidArgument(
                f"cannot register shared memory region '{name}' with key '{key}' as the key "
                f"contains the reserved prefix '{reserved}'"
            )
        if not _KEY.fullmatch(key) or key.removeprefix("/") in (".", ".."):
            raise InvalidArgument(
                f"cannot register shared memory region '{name}' - invalid shm key '{key}'"
            )
        if len(self._regions) >= _most():
            raise Unavailable(
                f"cannot register shared memory region '{name}': there are {len(self._regions)} "
                "regions, and no more at once; unregister those that are not needed"
            )
        self._regions[name] = Region.map(name, key, offset, byte_size)
        if there is not None:
            there.forget()

    def unregister(self, name: str = "") -> None:
        """Forget one region or all: at once, or with the last request that holds it."""
        self._require_allowed()
        for each in [name] if name else list(self._regions):
            region = self._regions.get(each)
            if region is not None:
                region.unwanted = True
                self._let_go(region)

    def close(self) -> None:
        """Forget all regions, whether clients may use them or not."""
        for region in self._regions.values():
            region.forget()
        self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """One region or all."""
        if not name:
            return [region.json() for region in self._regions.values()]
        if name not in self._regions:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return [self._regions[name].json()]

    def lend(self, request: InferRequest) -> Lease | None:
        """Hold what a request names, and read its inputs; None if it names nothing.

        Its inputs become views of the client's memory. Raises what the request is refused for.
        """
        inputs = [each for each in request.inputs if each.data is None and _names(each.parameters)]
        outputs = [each for each in request.outputs or () if _names(each.parameters)]
        if not inputs and not outputs:
            return None
        self._require_allowed()
        lease = Lease(self)
        try:
            for tensor in inputs:
                tensor.data = lease.read(tensor, request.model)
            for output in outputs:
                lease.place(output.parameters or {})
        except BaseException:
            lease.end()
            raise
        request.shared = lease
        return lease

    def standing(self, request: InferRequest) -> Standing | None:
        """Where all tensors of requests with the words of this one lie; None where some do not."""
        outputs = request.outputs or []
        tensors = [*request.inputs, *outputs]
        if not outputs or not self.allowed or not all(_names(each.parameters) for each in tensors):
            return None
        lease = Lease(self)
        try:
            arrays = {each.name: lease.read(each, request.model) for each in request.inputs}
            places = {each.name: lease.place(each.parameters or {}) for each in outputs}
            return Standing(lease.regions(), self.give_back, arrays, places)
        except TuiliError:
            return None  # The long way tells why.
        finally:
            lease.end()

    def take(self, name: str) -> Region:
        """The region of that name, for one more request."""
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{name}'")
        region.holders += 1
        return region

    def give_back(self, region: Region) -> None:
        """A request that held a region has ended."""
        region.holders -= 1
        self._let_go(region)

    def _let_go(self, region: Region) -> None:
        # The last view of it that a run still has unmaps it.
        if region.unwanted and not region.holders and self._regions.get(region.name) is region:
            del self._regions[region.name]
            region.forget()

    def _require_allowed(self) -> None:
        if not self.allowed:
            raise Unsupported(DISABLED)


class Lease:
    """The regions that one request holds, until it ends."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._held: dict[str, Region] = {}

    def read(self, tensor: InputTensor, model: str = "") -> Array:
        """An input that lies in shared memory, as a view of it."""
        view = self.place(tensor.parameters or {})
        if tensor.datatype in BYTE_SIZE and tensor.datatype != "BYTES":
            expected = element_count(tensor.shape) * BYTE_SIZE[tensor.datatype]
            if len(view) != expected:
                raise InvalidArgument(
                    f"input byte size mismatch for input '{tensor.name}' for model '{model}'. "
                    f"Expected {expected}, got {len(view)}"
                )
        return decode(tensor.name, tensor.datatype, tensor.shape, view)

    def write(self, name: str, parameters: Parameters, array: Array, datatype: str) -> None:
        """Put the output `name` where the request wants it."""
        write_output(name, self.place(parameters), array, datatype)
        if GUARD.losses:
            self.require_whole()

    def place(self, parameters: Parameters) -> memoryview:
        """The bytes that a tensor's parameters name, in a region that is held from now on."""
        name = str(parameters.get(_REGION, ""))
        region = self._held.get(name)
        if region is None:
            region = self._held[name] = self._regions.take(name)
        return region.place(parameters)

    def regions(self) -> list[Region]:
        """Those that it holds."""
        return list(self._held.values())

    def require_whole(self) -> None:
        """InvalidArgument where memory was taken away while the request used it."""
        for region in self._held.values():
            region.require_whole()

    def end(self) -> None:
        """The request has ended."""
        held, self._held = self._held, {}
        for region in held.values():
            self._regions.give_back(region)


def _most() -> int:
    """How many regions there may be."""
    return min(_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE)


def require_data(tensor: InputTensor) -> None:
    """Unsupported for an input in shared memory that nobody was allowed to read."""
    if _names(tensor.parameters):
        raise Unsupported(DISABLED)


def _names(parameters: Parameters | None) -> bool:
    return parameters is not None and _REGION in parameters
