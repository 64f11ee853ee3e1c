"""Lending: requests hold the clients' shared memory that they name from arrival to answer."""

from __future__ import annotations

from tuili.errors import TuiliError
from tuili.server.execution.express import Buffer, Express
from tuili.server.execution.pending import ENDED, Reply, StreamReply, Ticket
from tuili.server.memory.held import Held
from tuili.server.memory.shared_memory import Lease, Regions
from tuili.server.protocol.messages import InferRequest, InferResponse
from tuili.server.tracing.tracer import PlainWays, Ways


class Lending:
    """Stands in the way of all requests, before anything that lets them wait."""

    def __init__(self, dataplane: Ways, regions: Regions) -> None:
        self._before = PlainWays(dataplane)
        self._regions = regions
        dataplane.go_by(self)

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """As the data plane's."""
        try:
            lease = self._regions.lend(request)
        except TuiliError as error:
            reply(error)
            return ENDED
        if lease is None:
            return self._before.submit(request, reply)

        def answered(answer: InferResponse | TuiliError) -> None:
            # Before the client hears of it: what it asks next may be whether the region is gone.
            lease.end()
            reply(answer)

        return _Borrower(lease, self._before.submit(request, answered))

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As the data plane's; the last answer ends it."""
        try:
            lease = self._regions.lend(request)
        except TuiliError as error:
            reply(error, True)
            return ENDED
        if lease is None:
            return self._before.submit_stream(request, reply)

        def answered(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if final:
                lease.end()
            reply(answer, final)

        return _Borrower(lease, self._before.submit_stream(request, answered))

    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: object,
        deadline: float | None = None,
        ident: str = "",
    ) -> Ticket | None:
        """As the data plane's; None where what the words name is not what it was."""
        standing = express.standing
        if standing is None:
            return self._before.express(express, raw, reply, target, deadline, ident)
        if not standing.hold():
            return None
        held = Held(standing, reply, target)
        try:
            held.ticket = self._before.express(express, raw, held.answered, held, deadline, ident)
        except BaseException:
            held.end()
            raise
        if held.ticket is None:
            held.end()
            return None
        return held

    def go_by(self, ways: Ways) -> None:
        """Nobody asks."""


class _Borrower:
    """The ticket of a request that holds regions."""

    __slots__ = ("_lease", "_ticket")

    def __init__(self, lease: Lease, ticket: Ticket) -> None:
        self._lease = lease
        self._ticket = ticket

    def cancel(self) -> None:
        """Nobody waits any more; a run that still reads keeps its views of the memory."""
        self._lease.end()
        self._ticket.cancel()
