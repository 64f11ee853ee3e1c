"""Routing: one request on its way through a split: to a variant, and back if that one fails it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuili.errors import TuiliError, UserError
from tuili.server.execution.pending import Reply
from tuili.server.protocol.messages import (
    VARIANT,
    InferRequest,
    InferResponse,
    sequence_of,
    starts_sequence,
)
from tuili.server.rollout.plan import STABLE

if TYPE_CHECKING:
    from tuili.server.control.split import Split


class Asked:
    """What the router may look at of a request."""

    __slots__ = ("_known", "_request")

    def __init__(self, request: InferRequest, known: Mapping[str, str] | None) -> None:
        self._request = request
        self._known = known

    def header(self, name: str) -> str:
        origin = self._request.origin
        found = "" if origin is None else origin.header(name)
        return self._ours(name.replace("-", "_"), found)

    def parameter(self, name: str) -> str:
        found = (self._request.parameters or {}).get(name, "")
        return self._ours(name, str(found))

    def address(self) -> str:
        origin = self._request.origin
        return "" if origin is None else origin.address()

    def _ours(self, name: str, found: str) -> str:
        if self._known is not None and name.endswith(VARIANT) and found not in self._known:
            return ""
        return found


class Routed:
    """One request on its way through a split; also its ticket."""

    __slots__ = ("_began", "_choice", "_reply", "_request", "_split", "_ticket")

    def __init__(self, split: Split, request: InferRequest, reply: Reply) -> None:
        self._split = split
        self._request = request
        self._reply: Reply | None = reply
        self._began = time.monotonic_ns()
        self._choice = split.choose(request)
        self._ticket: Any = None

    def start(self) -> None:
        """Ask the variant."""
        split, choice = self._split, self._choice
        if choice.variant == STABLE:
            self._ticket = split.stable_for(self._request).submit(
                self._request, self._stable_answered
            )
            return
        live = split.able(choice, self._request)
        if live is None:
            self._fall_back()
            return
        try:
            self._ticket = live.submit(self._request, self._candidate_answered)
        except TuiliError as error:
            self._candidate_answered(error)

    def cancel(self) -> None:
        """Forget the request."""
        self._reply = None
        if self._ticket is not None:
            self._ticket.cancel()

    def _stable_answered(self, answer: InferResponse | TuiliError) -> None:
        split, choice = self._split, self._choice
        try:
            if isinstance(answer, InferResponse):
                self._note(answer)
                live = split.live(STABLE)
                if live is not None:  # else it went when its last requests were under way
                    split.shadow.offer(self._request, answer, live.pending())
            elif not isinstance(answer, UserError):
                split.failed(choice, str(answer))
        finally:
            # Whatever is wrong with our numbers, the client has his answer.
            self._hand_over(answer)

    def _note(self, answer: InferResponse) -> None:
        split, choice = self._split, self._choice
        mark(answer, choice.variant)
        split.count(choice, time.monotonic_ns() - self._began)
        split.look_through(choice, answer)

    def _candidate_answered(self, answer: InferResponse | TuiliError) -> None:
        split, choice = self._split, self._choice
        if isinstance(answer, InferResponse):
            try:
                self._note(answer)
            finally:
                self._hand_over(answer)
            return
        fault = not isinstance(answer, UserError)
        if fault:
            split.failed(choice, str(answer))
        if not self._may_fall_back():
            self._hand_over(answer)
            return
        self._fall_back(None if fault else str(answer))

    def _may_fall_back(self) -> bool:
        """Not in the middle of a sequence, whose state is the candidate's."""
        return self._split.rollout.plan.fallback and not goes_on(self._request)

    def _fall_back(self, refused: str | None = None) -> None:
        """Ask the stable variant; `refused`: why the candidate did not take the request."""

        def answered(answer: InferResponse | TuiliError) -> None:
            if isinstance(answer, InferResponse):
                if refused is not None:
                    # What the stable variant can answer is no mistake of the client's.
                    self._split.failed(self._choice, refused)
                mark(answer, STABLE)
                self._split.stays(self._request, self._choice)
            self._hand_over(answer)

        try:
            self._ticket = self._split.stable_for(self._request).submit(self._request, answered)
        except TuiliError as error:
            self._hand_over(error)

    def _hand_over(self, answer: InferResponse | TuiliError) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply(answer)


def goes_on(request: InferRequest) -> bool:
    """Whether a request is in the middle of a sequence."""
    return bool(sequence_of(request)) and not starts_sequence(request)


def mark(answer: InferResponse, variant: str) -> None:
    """Tell the client which variant answered; the version is in every answer."""
    answer.parameters = {**(answer.parameters or {}), VARIANT: variant}
