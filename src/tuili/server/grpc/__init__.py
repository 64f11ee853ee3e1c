"""gRPC for the data plane: `start` listens, the object it returns stops."""

from __future__ import annotations

import ssl
from typing import Literal, Protocol

from tuili.server.dataplane import DataPlane
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.listener import GrpcListener
from tuili.server.listening import Address, listen

__all__ = ["GrpcLimits", "GrpcServer", "start"]


class GrpcServer(Protocol):
    """A listening gRPC front end."""

    @property
    def port(self) -> int: ...
    def close(self) -> None: ...
    async def wait_closed(self, timeout_s: float | None = None) -> None: ...


async def start(
    dataplane: DataPlane,
    host: str = "127.0.0.1",
    port: int = 8001,
    limits: GrpcLimits | None = None,
    *,
    grpc_impl: Literal["native", "grpcio"] = "native",
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
) -> GrpcServer:
    """Listen on `host:port` (0 takes a free port) and answer from `dataplane`.

    `native` is our own HTTP/2; `grpcio` is slower by far and has no TLS here.
    """
    limits = limits or GrpcLimits()
    if grpc_impl == "grpcio":
        from tuili.server.grpc.grpcio_server import start_grpcio

        return await start_grpcio(dataplane, host, port, limits)
    if tls is not None:
        tls.set_alpn_protocols(["h2"])
    listener = GrpcListener(dataplane, limits)
    address = Address(host, port, tls, reuse_port)
    return await listen(listener.connect, listener.connections, address)
