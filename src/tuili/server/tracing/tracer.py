"""Tracer: takes every n-th request of a data plane, notes its way, and sees its trace written.

While no request is to be traced, the data plane's own functions are called and nothing here is.
The settings of a model that has none of its own are the server's, which all such models share.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from tuili.errors import TuiliError
from tuili.server.execution.express import Buffer, Express
from tuili.server.execution.pending import Reply, StreamReply, Ticket
from tuili.server.protocol.messages import InferRequest, InferResponse, Origin
from tuili.server.settings import TraceSettings
from tuili.server.tracing.config import TraceConfig
from tuili.server.tracing.files import TraceFile
from tuili.server.tracing.sampling import Sampler
from tuili.server.tracing.spans import Spans, spans_of
from tuili.server.tracing.trace import Trace

Json = dict[str, Any]
_MOST_KEPT: Final = 1000
_MOST_BYTES: Final = 64 << 20
# W3C Trace Context, 3.2: a valid field whose sender records the request.
_PARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


class Ways(Protocol):
    """What a data plane is asked: these are put in its functions' place, and taken back."""

    def submit(self, request: InferRequest, reply: Reply) -> Ticket: ...
    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket: ...
    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: object,
        deadline: float | None = None,
        ident: str = "",
    ) -> Ticket | None: ...
    def go_by(self, ways: Ways) -> None: ...


class PlainWays:
    """The functions that a data plane had before."""

    def __init__(self, dataplane: Ways) -> None:
        self.submit = dataplane.submit
        self.submit_stream = dataplane.submit_stream
        self.express = dataplane.express

    def go_by(self, ways: Ways) -> None:
        """Nobody asks."""


class Kept:
    """Traces that are not written yet."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self._bytes = 0

    def add(self, trace: Trace) -> None:
        """One more."""
        self.traces.append(trace)
        self._bytes += trace.size()

    @property
    def many(self) -> bool:
        """Whether they are enough for a block."""
        return len(self.traces) >= _MOST_KEPT or self._bytes >= _MOST_BYTES


class Tracer:
    """The traces of one server."""

    def __init__(self, dataplane: Ways, config: TraceConfig) -> None:
        self._dataplane = dataplane
        self.settings = TraceSettings(config.settings, config.mode)
        self._spans: Spans | None = spans_of(config) if config.mode == "opentelemetry" else None
        self._samplers: dict[str, Sampler] = {"": Sampler(self.settings.of())}
        self._kept: dict[Sampler, Kept] = {}
        self._under_way: dict[Sampler, int] = {}
        self._files: dict[str, TraceFile] = {}
        self._before: PlainWays | None = None
        # A request that is to be traced is refused the express way: whose, and since when.
        self._chosen: tuple[object, Sampler, int] | None = None
        # Called when requests begin, or cease, to be traced.
        self.on_change: Callable[[], None] = _nothing

    def arm(self) -> None:
        """Stand in the way of requests exactly while one of them may have to be traced."""
        levels = any(each.levels for each in self._samplers.values())
        file = any(each.open and each.file for each in self._samplers.values())
        wanted = levels if self._spans is not None else file
        if wanted and self._before is None:
            self._before = PlainWays(self._dataplane)
            self._dataplane.go_by(self)
            self.on_change()
        elif not wanted and self._before is not None:
            before, self._before = self._before, None
            self._dataplane.go_by(before)
            self.on_change()

    # ---- settings
    def of(self, model: str = "") -> Json:
        """The settings of a model, or of the server; the count is what is left of it."""
        found = self.settings.of(model)
        return {**found, "trace_count": str(self._sampler(model).left)}

    def update(self, settings: Json, model: str = "") -> Json:
        """Merge settings; counting begins anew for whom they change."""
        self.settings.update(settings, model)
        for name in [model] if model else list(self._samplers):
            old = self._samplers.pop(name, None)
            if name == "" or self.settings.has_own(name):
                self._samplers[name] = Sampler(self.settings.of(name))
            if old is not None:
                self._flush(old, numbered=old.log_frequency > 0)
        self.arm()
        return self.of(model)

    def traces(self, model: str) -> bool:
        """Whether requests to a model may be traced now."""
        return self._before is not None and (self._spans is not None or self._sampler(model).open)

    def close(self) -> None:
        """Write what is left."""
        for sampler in list(self._kept):
            self._flush(sampler, numbered=sampler.log_frequency > 0)
        for file in self._files.values():
            file.close()
        if self._spans is not None:
            self._spans.close()

    # ---- the ways of requests, while any is to be traced
    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: Any,
        deadline: float | None = None,
        ident: str = "",
    ) -> Ticket | None:
        """As the data plane's; None for a request to be traced, which goes the long way."""
        assert self._before is not None
        self._chosen = None
        sampler = self._taken(express.request.model, target)
        if sampler is not None:
            self._chosen = (target, sampler, time.monotonic_ns())
            return None
        return self._before.express(express, raw, reply, target, deadline, ident)

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """As the data plane's."""
        before = self._before
        assert before is not None
        found = self._begin(request)
        if found is None:
            return before.submit(request, reply)
        trace, sampler, kind = found
        origin = request.origin

        def answered(answer: InferResponse | TuiliError) -> None:
            trace.answered(answer)
            trace.stamp("REQUEST_END")
            trace.stamp(f"{kind}_SEND_START")
            fields = self._fields(origin)
            reply(answer)
            trace.stamp(f"{kind}_SEND_END")
            self._finished(trace, sampler, fields)

        return before.submit(request, answered)

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As the data plane's; a trace of several answers has the moments of the last."""
        before = self._before
        assert before is not None
        found = self._begin(request)
        if found is None:
            return before.submit_stream(request, reply)
        trace, sampler, kind = found
        fields = self._fields(request.origin)

        def answered(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if answer is not None:
                trace.answered(answer)
            trace.stamp(f"{kind}_SEND_START")
            reply(answer, final)
            trace.stamp(f"{kind}_SEND_END")
            if final:
                trace.stamp("REQUEST_END", trace.stamps[f"{kind}_SEND_START"])
                self._finished(trace, sampler, fields)

        return before.submit_stream(request, answered)

    def go_by(self, ways: Ways) -> None:
        """Nobody asks."""

    # ---- steps
    def _sampler(self, model: str) -> Sampler:
        return self._samplers.get(model) or self._samplers[""]

    def _taken(self, model: str, origin: Origin | None) -> Sampler | None:
        """The sampler that takes a request, if one does."""
        sampler = self._sampler(model)
        if self._spans is None and not sampler.file:
            return None
        if sampler.take():
            return sampler
        if self._spans is not None and sampler.levels and origin is not None:
            parent = origin.header("traceparent")
            return sampler if _PARENT.fullmatch(parent) else None
        return None

    def _begin(self, request: InferRequest) -> tuple[Trace, Sampler, str] | None:
        now_ns = time.monotonic_ns()
        origin = request.origin
        if origin is None or request.trace is not None:
            return None  # From a model or a queue, or here already.
        chosen, self._chosen = self._chosen, None
        if chosen is not None and chosen[0] is origin:
            _, sampler, now_ns = chosen
        elif (taken := self._taken(request.model, origin)) is not None:
            sampler = taken
        else:
            return None
        trace = Trace(sampler.levels, request)
        request.trace = trace
        self._under_way[sampler] = self._under_way.get(sampler, 0) + 1
        kind = origin.protocol
        coming = "RECV" if kind == "HTTP" else "WAITREAD"
        trace.stamp(f"{kind}_{coming}_START", origin.since_ns or now_ns)
        trace.stamp(f"{kind}_{coming}_END", now_ns)
        trace.stamp("REQUEST_START")
        return trace, sampler, kind

    def _fields(self, origin: Origin | None) -> dict[str, str]:
        """What a request says of the trace that it is part of."""
        if self._spans is None or origin is None:
            return {}
        fields = {name: origin.header(name) for name in ("traceparent", "tracestate")}
        return {name: value for name, value in fields.items() if value}

    def _finished(self, trace: Trace, sampler: Sampler, fields: dict[str, str]) -> None:
        self._under_way[sampler] -= 1
        if self._spans is not None:
            self._spans.record(trace, fields)
            return
        kept = self._kept.setdefault(sampler, Kept())
        kept.add(trace)
        every = sampler.log_frequency
        if sampler.left == 0:
            self.arm()
            if not self._under_way[sampler]:
                self._flush(sampler, numbered=True)
        elif kept.many or (every and len(kept.traces) >= every):
            self._flush(sampler, numbered=every > 0)

    def _flush(self, sampler: Sampler, *, numbered: bool) -> None:
        kept = self._kept.pop(sampler, None)
        if kept is not None:
            file = self._files.get(sampler.file)
            if file is None:
                file = self._files[sampler.file] = TraceFile(Path(sampler.file))
            file.write(kept.traces, numbered=numbered)


def _nothing() -> None:
    """Nobody wants to know."""
