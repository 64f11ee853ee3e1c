"""gRPC for the data plane: `start` listens, the object it returns stops."""

from __future__ import annotations

from typing import Literal, Protocol

from tuili.server.dataplane import DataPlane
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.listener import GrpcListener
from tuili.server.listening import Address, listen
from tuili.server.telemetry.access_log import AccessLog

__all__ = ["GrpcLimits", "GrpcServer", "start"]


class GrpcServer(Protocol):
    """A listening gRPC front end."""

    @property
    def port(self) -> int: ...
    def close(self) -> None: ...
    async def wait_closed(self, timeout_s: float | None = None) -> bool: ...


async def start(
    dataplane: DataPlane,
    address: Address,
    limits: GrpcLimits | None = None,
    *,
    grpc_impl: Literal["native", "grpcio"] = "native",
    access_log: AccessLog | None = None,
) -> GrpcServer:
    """Listen (port 0 takes a free one) and answer from `dataplane`.

    `native` is our own HTTP/2; `grpcio` is slower by far.
    """
    limits = limits or GrpcLimits()
    if grpc_impl == "grpcio":
        from tuili.server.grpc.grpcio_server import start_grpcio

        return await start_grpcio(dataplane, address, limits)
    if address.tls is not None:
        address.tls.set_alpn_protocols(["h2"])
    listener = GrpcListener(Inference(dataplane, limits.room), limits, access_log)
    return await listen(listener.connect, listener.connections, address)
