"""HttpChannel: HTTP/1.1 over one kept connection, one request at a time."""

from __future__ import annotations

from typing import Final

from tuili.bench.load.exchange import Exchange, Finished, Verdict, Wrong
from tuili.bench.load.sockets import Stream, Target

_SPARE: Final = 64 << 10
_MAX_TEXT: Final = 200


class HttpChannel:
    """One connection; an answer that repeats the last good one costs one comparison."""

    streams = 1

    def __init__(self, target: Target, finished: Finished) -> None:
        self._stream = Stream(target)
        self._finished = finished
        self._buffer = bytearray(_SPARE)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._exchange: Exchange | None = None
        self._due = 0.0
        self.busy = 0
        self.broken = False
        self.fileno = self._stream.fileno

    @property
    def blocked(self) -> bool:
        """Whether bytes wait for the kernel."""
        return self._stream.blocked

    def start(self, exchange: Exchange, due: float) -> None:
        """Send a request."""
        self._exchange, self._due = exchange, due
        self.busy = 1
        if exchange.before is not None:
            exchange.before()
        self._reserve(len(exchange.good) + _SPARE)
        self._stream.send(exchange.payload)

    def resume(self) -> None:
        """Send on."""
        self._stream.resume()

    def receive(self) -> None:
        """Take what came."""
        stream = self._stream
        while True:
            size = stream.receive_into(self._view[self._filled :] if self._filled else self._view)
            self._filled += size
            if stream.lost:
                self._lose(stream.lost)
                return
            exchange = self._exchange
            if size and exchange is None:
                self._lose("bytes that nobody asked for")
                return
            if exchange is not None and self._filled:
                good = exchange.good
                # `startswith` compares without copying.
                if good and self._filled == len(good) and self._buffer.startswith(good):
                    self._end(Verdict.GOOD, "")
                else:
                    self._look()
            if not size or not stream.pending():
                return

    def close(self) -> None:
        """Close."""
        self._stream.close()

    # ---- the long way
    def _look(self) -> None:
        """Parse what is here; nothing to do until the answer is whole."""
        exchange = self._exchange
        assert exchange is not None
        stop = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if stop < 0:
            self._reserve(self._filled + _SPARE)
            return
        lines = bytes(self._view[:stop]).split(b"\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines[1:])
        }
        length = headers.get(b"content-length", b"")
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            found = chunked_body(self._buffer, stop + 4, self._filled)
            if found is None:
                self._reserve(self._filled + _SPARE)
                return
            body, end = found
        elif length.isdigit():
            end = stop + 4 + int(length)
            if self._filled < end:
                self._reserve(end + _SPARE)
                return
            body = bytes(self._view[stop + 4 : end])
        else:
            self._lose(f"an answer without Content-Length: {lines[0]!r}")
            return
        if not lines[0].startswith(b"HTTP/1.1 200"):
            text = body[:_MAX_TEXT].decode("utf-8", "replace")
            status = lines[0].decode("latin-1").partition(" ")[2]
            self._end(Verdict.REFUSED, f"{status}: {text}")
        else:
            self._judge(exchange, headers, body, end)
        if headers.get(b"connection", b"").lower() == b"close":
            self.broken = True

    def _judge(
        self, exchange: Exchange, headers: dict[bytes, bytes], body: bytes, end: int
    ) -> None:
        try:
            exchange.judge(headers, body)
        except Wrong as wrong:
            self._end(Verdict.WRONG, str(wrong))
            return
        if exchange.repeats:
            exchange.good = bytes(self._view[:end])
        self._end(Verdict.GOOD, "")

    def _end(self, verdict: Verdict, text: str) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._filled = 0
        self.busy = 0
        self._finished(exchange, self._due, verdict, text)

    def _lose(self, text: str) -> None:
        self.broken = True
        if self._exchange is not None:
            self._end(Verdict.LOST, text)

    def _reserve(self, size: int) -> None:
        """Make the buffer at least `size` bytes."""
        if size > len(self._buffer):
            self._view.release()
            self._buffer.extend(bytes(size - len(self._buffer)))
            self._view = memoryview(self._buffer)


def chunked_body(data: bytearray, at: int, end: int) -> tuple[bytes, int] | None:
    """The body of chunks (RFC 9112, 7.1) from `at`, and where it ends; None while not all there."""
    pieces: list[bytes] = []
    while (stop := data.find(b"\r\n", at, end)) >= 0:
        try:
            size = int(bytes(data[at:stop]).partition(b";")[0], 16)
        except ValueError:
            return None
        after = stop + 2 + size + 2
        if after > end:
            return None
        pieces.append(bytes(data[stop + 2 : stop + 2 + size]))
        at = after
        if not size:
            return b"".join(pieces), at
    return None
