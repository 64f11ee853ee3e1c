"""HTTP/1.1 for the data plane: `start` listens, the object it returns stops."""

from __future__ import annotations

from tuili.server.dataplane import DataPlane
from tuili.server.http.application import Application
from tuili.server.http.limits import HttpLimits
from tuili.server.http.listener import HttpListener
from tuili.server.http.metrics import MetricsPage
from tuili.server.http.refusals import Refusals
from tuili.server.listening import Address, Listening, listen
from tuili.server.telemetry.access_log import AccessLog
from tuili.server.webhooks import Webhooks

__all__ = [
    "Application", "HttpLimits", "Listening", "Refusals", "listen_for", "start", "start_metrics",
]  # fmt: skip


async def start(
    dataplane: DataPlane,
    address: Address,
    limits: HttpLimits | None = None,
    *,
    refusals: Refusals | None = None,
    webhooks: Webhooks | None = None,
    access_log: AccessLog | None = None,
) -> Listening:
    """Listen (port 0 takes a free one) and answer from `dataplane`."""
    limits = limits or HttpLimits()
    application = Application(dataplane, limits, refusals or Refusals(), webhooks)
    return await listen_for(application, address, limits, access_log)


async def listen_for(
    application: Application, address: Address, limits: HttpLimits, access_log: AccessLog | None
) -> Listening:
    """Listen, and have an application answer that may have other doors too."""
    listener = HttpListener(application.dispatch, limits, access_log, application.foresee)
    return await listen(listener.connect, listener.connections, address)


async def start_metrics(
    dataplane: DataPlane, host: str = "127.0.0.1", port: int = 8002
) -> Listening:
    """Listen on `host:port` for `GET /metrics`."""
    listener = HttpListener(MetricsPage(dataplane).dispatch, HttpLimits())
    return await listen(listener.connect, listener.connections, Address(host, port))
