"""Opens the transports of a server as its options say."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

from tuili.errors import InvalidArgument, Unavailable, Unsupported
from tuili.server.dataplane import DataPlane
from tuili.server.jobs.changes import Left
from tuili.server.jobs.journal import Disk, open_journal
from tuili.server.listening import Address
from tuili.server.options import ServerOptions
from tuili.server.protocol.restrictions import Restrictions, read_keys
from tuili.server.room import Room
from tuili.server.scheduling.jobs import KEEP_S
from tuili.server.tls import server_context
from tuili.server.webhooks import Webhooks

if TYPE_CHECKING:
    from tuili.server.grpc import GrpcLimits
    from tuili.server.http import Application, HttpLimits, Refusals


# RFC 7301, section 6.
_ALPN: Final = {"http": "http/1.1", "grpc": "h2"}


class FrontEnd(Protocol):
    """A listening transport."""

    @property
    def port(self) -> int: ...
    def close(self) -> None: ...
    async def wait_closed(self, timeout_s: float | None = None) -> bool: ...


def http_rules(options: ServerOptions, room: Room) -> tuple[HttpLimits, Refusals]:
    """What HTTP clients may ask, and how they are refused."""
    try:
        from tuili.server import http
    except ImportError as error:
        raise _missing_extra(error) from error
    limits = http.HttpLimits(
        max_json_bytes=options.max_input_bytes,
        room=room,
        restrictions=Restrictions(read_keys(options.http_restricted_api)),
    )
    if options.compat == "triton":
        # Its clients keep their connections until the exit timeout is over.
        limits = replace(
            limits,
            parting_s=options.exit_timeout_s,
            length_beside_chunks=True,
            host_optional=True,
            health_in_body=False,
        )
    refusals = http.Refusals(
        overload_status=options.overload_status,
        json_mistake_status=500 if options.compat == "triton" else 400,
    )
    return limits, refusals


def grpc_rules(options: ServerOptions, room: Room) -> GrpcLimits:
    """What gRPC clients may ask."""
    try:
        from tuili.server import grpc
    except ImportError as error:
        raise _missing_extra(error) from error
    keys = read_keys(options.grpc_restricted_protocol)
    restrictions = Restrictions(keys, "protocol", "triton-grpc-protocol-")
    return grpc.GrpcLimits(room=room, restrictions=restrictions)


async def http_application(dataplane: DataPlane, options: ServerOptions) -> Application:
    """What answers HTTP at all doors of this process, with what an earlier one left of its jobs."""
    limits, refusals = http_rules(options, dataplane.room)
    from tuili.server import http

    journal: Disk | None = None
    lefts: list[Left] = []
    if options.jobs_dir is not None:
        journal, lefts = await open_journal(options.jobs_dir, KEEP_S)
    application = http.Application(
        dataplane, limits, refusals, Webhooks(options.allow_webhook), journal
    )
    application.jobs.restore(lefts)
    return application


async def start_http(
    application: Application,
    dataplane: DataPlane,
    options: ServerOptions,
    address: Address | None = None,
) -> FrontEnd:
    """HTTP, at the options' address if at no other."""
    limits, _ = http_rules(options, dataplane.room)
    from tuili.server import http

    if address is not None and address.path:
        # Other front ends come this way, whose connections may rest for as long as they like.
        limits = replace(limits, keep_alive_s=float("inf"), head_timeout_s=float("inf"))
    try:
        return await http.listen_for(
            application,
            address or http_address(options),
            limits,
            # What comes from another front end was noted there.
            None if address is not None else dataplane.access_log,
        )
    except OSError as error:
        raise cannot_listen("http", options.http_port, error) from error


async def start_grpc(
    dataplane: DataPlane, options: ServerOptions, address: Address | None = None
) -> FrontEnd:
    """gRPC, at the options' address if at no other."""
    limits = grpc_rules(options, dataplane.room)
    from tuili.server import grpc

    if options.access_log and options.grpc_impl == "grpcio":
        raise Unsupported("--grpc-impl grpcio keeps no access log; the native implementation does")
    try:
        return await grpc.start(
            dataplane,
            address or grpc_address(options),
            limits,
            grpc_impl=options.grpc_impl,
            access_log=None if address is not None else dataplane.access_log,
        )
    except (OSError, RuntimeError) as error:
        raise cannot_listen("grpc", options.grpc_port, error) from error


async def start_metrics(dataplane: DataPlane, options: ServerOptions) -> FrontEnd:
    """`/metrics`."""
    from tuili.server import http

    try:
        return await http.start_metrics(dataplane, options.host, options.metrics_port)
    except OSError as error:
        raise cannot_listen("metrics", options.metrics_port, error) from error


def http_address(options: ServerOptions) -> Address:
    """Where HTTP listens."""
    return Address(options.host, options.http_port, _tls(options, "http"), options.frontends > 1)


def grpc_address(options: ServerOptions) -> Address:
    """Where gRPC listens."""
    return Address(options.host, options.grpc_port, _tls(options, "grpc"), options.frontends > 1)


def _tls(options: ServerOptions, protocol: Literal["http", "grpc"]) -> ssl.SSLContext | None:
    """The context of a front end; None for plain text."""
    certificate, key, authorities = (
        options.tls_certificate, options.tls_key, options.tls_client_ca
    )  # fmt: skip
    if certificate is None and key is None:
        if authorities is not None or options.tls_protocols != "both":
            raise InvalidArgument(
                "--tls-client-ca and --tls-protocols need --tls-certificate and --tls-key: "
                "without them nothing speaks TLS"
            )
        return None
    if certificate is None or key is None:
        raise InvalidArgument(
            "--tls-certificate and --tls-key go together, and one of them is missing"
        )
    if options.tls_protocols not in ("both", protocol):
        return None
    return server_context(certificate, key, protocol=_ALPN[protocol], client_ca=authorities)


def _missing_extra(error: ImportError) -> Unsupported:
    return Unsupported(f"{error}; serving needs `pip install 'tuili[server]'`")


def cannot_listen(name: str, port: int, error: Exception) -> Unavailable:
    """The error of a port that is taken, or of an address that is not ours."""
    return Unavailable(
        f"cannot listen on {name} port {port}: {error}; choose another with --{name}-port, "
        "or -1 to do without"
    )
