"""Every method by its path, whichever protocol it is of."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from tuili.errors import InternalError, TooLarge
from tuili.server.dataplane import DataPlane
from tuili.server.grpc import predict
from tuili.server.grpc.schema import HEALTH_V1, INFERENCE, SERVING
from tuili.server.grpc.service import (
    HEALTH_NAME,
    OPERATIONS,
    SERVICE_NAME,
    Message,
    health_check,
)
from tuili.server.grpc.varints import Buffer
from tuili.server.protocol.messages import Origin

_LOAD: Final = INFERENCE["RepositoryModelLoadRequest"]  # which brings files
_MOST_SHORT_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Method:
    """A unary method: its request class and what it does with the data plane and a request.

    One that `infers` reads its request itself, `in_turns` where that takes long; it is told where
    that comes from, and is taken back with its call.
    """

    request: Any
    operation: Callable[..., Message | Awaitable[Message]]
    infers: bool = False

    @property
    def most_bytes(self) -> int:
        """Of a request: names and settings are short, and long messages hold up others."""
        return sys.maxsize if self.infers or self.request is _LOAD else _MOST_SHORT_BYTES

    def call(
        self, dataplane: DataPlane, data: Buffer, origin: Origin, in_turns: predict.InTurns
    ) -> Message | Awaitable[Message]:
        """The response to a serialized request, or a promise of it."""
        if len(data) > self.most_bytes:
            raise TooLarge(
                f"{self.request.DESCRIPTOR.name} larger than max ({len(data)} vs."
                f" {self.most_bytes})"
            )
        if self.infers:
            return self.operation(dataplane, data, origin, in_turns)
        try:
            message = self.request.FromString(bytes(data))
        except DecodeError as error:
            raise InternalError(f"malformed {self.request.DESCRIPTOR.name}: {error}") from None
        result = self.operation(dataplane, message)
        if isinstance(result, Generator):
            return in_turns(result)
        if isinstance(result, Awaitable):
            result = _then_in_turns(result, in_turns)
        return dataplane.known(result)


async def _then_in_turns(result: Awaitable[Any], in_turns: predict.InTurns) -> Message:
    found = await result
    if isinstance(found, Generator):
        found = in_turns(found)
    return await found if isinstance(found, Awaitable) else found


INFER_PATH: Final = f"/{SERVICE_NAME}/ModelInfer"
STREAM_PATH: Final = f"/{SERVICE_NAME}/ModelStreamInfer"

# A message without fields takes any other: all of theirs are unknown to it.
_ANYTHING: Final = INFERENCE["ServerLiveRequest"]

# All but the two above.
METHODS: Final[dict[str, Method]] = {
    **{
        f"/{SERVICE_NAME}/{name}": Method(INFERENCE[f"{name}Request"], operation)
        for name, operation in OPERATIONS.items()
    },
    f"/{HEALTH_NAME}/Check": Method(HEALTH_V1["HealthCheckRequest"], health_check),
    f"/{predict.SERVICE}/Predict": Method(SERVING["PredictRequest"], predict.predict, infers=True),
    f"/{predict.SERVICE}/GetModelMetadata": Method(
        SERVING["GetModelMetadataRequest"], predict.metadata
    ),
    **{
        f"/{predict.SERVICE}/{name}": Method(_ANYTHING, predict.classify_or_regress)
        for name in ("Classify", "Regress", "MultiInference")
    },
    f"/{predict.MODELS}/GetModelStatus": Method(SERVING["GetModelStatusRequest"], predict.status),
}
