"""What clients ask about shared memory by the operations of the protocol, "cuda" included.

There is no CUDA here: its regions are none, and none can be registered.
"""

from __future__ import annotations

from typing import Any, Literal

from tuili.errors import InvalidArgument, NotFound, Unsupported
from tuili.server.memory.shared_memory import DISABLED, Regions

Kind = Literal["system", "cuda"]
Json = dict[str, Any]


def status(regions: Regions, kind: Kind, region: str) -> list[Json]:
    """`[{"name", "key", "offset", "byte_size"}]`; NotFound for an unknown region."""
    if kind == "cuda":
        if region:
            raise NotFound(f"Unable to find cuda shared memory region: '{region}'")
        return []
    return regions.status(region)


def register(regions: Regions, kind: Kind, region: str, parameters: Json) -> None:
    """Map a client's region: `{"key", "offset", "byte_size"}`."""
    _require(regions, kind)
    key = parameters.get("key")
    if not isinstance(key, str):
        raise InvalidArgument(f"region '{region}' needs a 'key', got {key!r}")
    offset, byte_size = parameters.get("offset", 0), parameters.get("byte_size")
    for name, value in (("offset", offset), ("byte_size", byte_size)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidArgument(f"region '{region}': {name!r} must be a number, got {value!r}")
    regions.register(region, key, offset, int(byte_size or 0))


def unregister(regions: Regions, kind: Kind, region: str) -> None:
    """Forget one region or ("") all; unknown ones are no error."""
    if kind == "cuda" and regions.allowed:
        return  # there are none
    _require(regions, kind)
    regions.unregister(region)


def _require(regions: Regions, kind: Kind) -> None:
    if not regions.allowed:
        raise Unsupported(DISABLED)
    if kind == "cuda":
        raise InvalidArgument(
            "failed to register shared memory region: invalid args, this server has no CUDA"
        )
