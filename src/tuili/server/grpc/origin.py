"""GrpcOrigin: what a call tells of where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from tuili.server.grpc.heads import RequestHead

if TYPE_CHECKING:
    from tuili.server.grpc.connection import GrpcConnection


class GrpcOrigin(msgspec.Struct, eq=False):
    """The side of a call that models, logs and routers see: `messages.Origin`."""

    _connection: GrpcConnection
    number: int
    head: RequestHead

    def header(self, name: str) -> str:
        """A field of the call's metadata, for the router of roll-outs."""
        return (self.head.fields or {}).get(name.encode(), b"").decode("latin-1")

    def headers(self) -> dict[str, str]:
        """The call's metadata, without the fields that are HTTP/2's own."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in (self.head.fields or {}).items()
            if not name.startswith(b":")
        }

    def address(self) -> str:
        """The peer's address."""
        return self._connection.address() or self.header("x-tuili-peer")

    @property
    def protocol(self) -> Literal["GRPC"]:
        """The transport."""
        return "GRPC"

    @property
    def since_ns(self) -> int:
        """Nobody notes when a message begins."""
        return 0
