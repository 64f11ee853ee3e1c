"""Door: where a request enters a model version, or is refused, or is served in a lesser way.

What is refused for want of time may be answered by a cached answer that is older than the cache
would give out, or by a smaller model, if the configuration says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from tuili.errors import InvalidModel
from tuili.server.execution.pending import Reply, Ticket
from tuili.server.protocol.messages import InferRequest
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.admission import Admission, Expectation, Limits

Submit = Callable[[InferRequest, Reply], Ticket]

# Entries of `parameters` in a configuration, with the field of `Limits` and its unit.
_LIMITS: Final = {
    "max_wait_ms": ("max_wait_s", 1e-3),
    "max_concurrency": ("concurrency", 1),
    "max_client_concurrency": ("client_concurrency", 1),
    "max_rate": ("rate", 1),
    "max_client_rate": ("client_rate", 1),
    "rate_burst_s": ("burst_s", 1),
}
DEGRADE_TO: Final = "degrade_to"
DEGRADE_CACHED: Final = "degrade_cached"
# What names a request's client: a parameter, a header or metadata field, or else its address.
CLIENT: Final = "client_id"
CLIENT_HEADER: Final = "x-client-id"


@dataclass(frozen=True, slots=True)
class Door:
    """What a model version lets in, and what it does with the rest."""

    admission: Admission
    degrade_to: str = ""
    degrade_cached: bool = False
    submit: Submit | None = None

    def lesser(self, request: InferRequest, reply: Reply) -> Ticket | None:
        """Send a refused request to the smaller model; None where there is none."""
        if not self.degrade_to or self.submit is None or request.degraded:
            return None
        instead = msgspec.structs.replace(request, model=self.degrade_to, version="", degraded=True)
        return self.submit(instead, reply)


def door_of(config: ModelConfig, instances: int, submit: Submit) -> Door | None:
    """The limits and degradation rules of a configuration; None when everybody is let in."""
    limits = Limits(
        **{
            name: type(getattr(Limits(), name))(float(config.parameters[key]) * unit)
            for key, (name, unit) in _LIMITS.items()
            if key in config.parameters
        }
    )
    degrade_to = config.parameters.get(DEGRADE_TO, "")
    degrade_cached = config.parameters.get(DEGRADE_CACHED, "false") == "true"
    if degrade_to == config.name:
        raise InvalidModel(f"model '{config.name}': {DEGRADE_TO} names the model itself")
    if limits == Limits() and not degrade_to and not degrade_cached:
        return None
    return Door(Admission(limits, Expectation(instances)), degrade_to, degrade_cached, submit)
