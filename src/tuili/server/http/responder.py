"""Responder: sends replies, and those that take long to write once they are written."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from tuili.errors import TuiliError
from tuili.server.http.connection import HttpConnection
from tuili.server.http.refusals import Refusals
from tuili.server.http.reply import Reply, error_reply
from tuili.server.slices import Slices
from tuili.server.steps import Steps

_LOG: Final = logging.getLogger("tuili.server.http")


class Responder:
    """What the routes of one front end answer by; never raises."""

    def __init__(self, refusals: Refusals, slices: Slices) -> None:
        self.refusals = refusals
        self.slices = slices

    def send(self, connection: HttpConnection, work: Steps[Reply]) -> None:
        """Answer the request under way by what `work` makes."""
        try:
            found = self.slices.begin(work, connection.loop)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not reach the batcher
            connection.reply(self.instead(error))
            return
        if isinstance(found, asyncio.Future):
            connection.work = found
            found.add_done_callback(partial(self._written, connection))
        else:
            connection.reply(found)

    def _written(self, connection: HttpConnection, written: asyncio.Future[Reply]) -> None:
        if not written.cancelled():
            error = written.exception()
            connection.reply(written.result() if error is None else self.instead(error))

    def instead(self, error: BaseException) -> Reply:
        """The reply in place of one that cannot be written."""
        if isinstance(error, TuiliError):
            return self.refusals.reply(error)
        _LOG.error("an answer could not be written", exc_info=error)
        return error_reply(500, "internal error; the server's log has the details")
