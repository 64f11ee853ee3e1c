"""LoggedStream: a gRPC call that is noted in the access log."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from tuili.server.grpc.encoding import Written
from tuili.server.grpc.frames import PREFIX_BYTES
from tuili.server.grpc.stream import GrpcStream
from tuili.server.grpc.varints import Buffer

_CANCELLED: Final = 1
_MODEL_NAME: Final = 0x0A  # field 1, length-delimited: first in what every serializer writes
_LONG: Final = 0x80


class LoggedStream(GrpcStream):
    """As any other; what there is to log costs nothing where nothing is logged."""

    _began_ns: int = msgspec.field(default_factory=time.monotonic_ns)
    _model: str = ""
    _received: int = 0
    _sent: int = 0

    def infer(self, message: Buffer) -> None:
        if len(message) > 1 and message[0] == _MODEL_NAME and message[1] < _LONG:
            self._model = bytes(message[2 : 2 + message[1]]).decode("utf-8", "replace")
        self._received = self._received or len(message)
        super().infer(message)

    def feed(self, data: bytes, at: int, end: int) -> None:
        self._received += end - at
        super().feed(data, at, end)

    def filled(self, size: int) -> None:
        self._received += size
        super().filled(size)

    def answer_known(self, message: bytes) -> None:
        self._sent = len(message) - PREFIX_BYTES
        self._note(0)
        super().answer_known(message)

    def _answer(self, answer: Written | asyncio.Future[Written]) -> None:
        if isinstance(answer, list):
            self._sent = sum(map(len, answer))
            self._note(0)
        super()._answer(answer)

    def _send(self, parts: list[Buffer]) -> None:
        self._sent += sum(map(len, parts))
        super()._send(parts)

    def _finish(self, code: int, text: str, pushback: int | None = None) -> None:
        self._note(code)
        super()._finish(code, text, pushback)

    def cancel(self) -> None:
        self._note(_CANCELLED)
        super().cancel()

    def _note(self, code: int) -> None:
        """The call is over, if it was not before."""
        began_ns, self._began_ns = self._began_ns, 0
        if began_ns and not self.over:
            what = ("POST", self.head.path)
            sizes = (self._received, self._sent)
            log = self._connection.access_log
            assert log is not None, "only made where there is a log"
            log.add(self.address(), "GRPC", what, code, began_ns, sizes, self._model)
