"""Outputs that go to clients' memory."""

from __future__ import annotations

import numpy as np

from tuili.errors import InvalidArgument
from tuili.runtime.streaming import stream
from tuili.server.protocol.datatypes import encode
from tuili.server.protocol.messages import Array


def write_output(name: str, view: memoryview, array: Array, datatype: str) -> None:
    """Put the output `name` at the start of `view`; InvalidArgument when it does not fit."""
    data = encode(array, datatype)
    if len(data) > len(view):
        raise InvalidArgument(
            f"shared memory size specified with the request for output '{name}' ({len(view)} "
            f"bytes) should be at least {len(data)} bytes to hold the results"
        )
    stream(view, np.frombuffer(data, np.uint8))
