"""The metrics of queues that requests are taken from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tuili.server.telemetry.prometheus import escape

ANSWERED: Final = "answered"
PUT_BACK: Final = "put_back"
BURIED: Final = "dead_letter"
UNTOLD: Final = "not_written"
_OUTCOMES: Final = (ANSWERED, PUT_BACK, BURIED, UNTOLD)


@dataclass(slots=True)
class QueueCounts:
    """What is shown of one queue."""

    name: str
    up: bool = False
    outages: int = 0
    in_hand: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])


def queue_lines(queues: Sequence[QueueCounts]) -> list[str]:
    """Their lines in the Prometheus text."""
    lines: list[str] = []
    for name, kind, text, values in (
        (
            "tuili_queue_up",
            "gauge",
            "Whether it can be reached",
            [int(q.up) for q in queues],
        ),
        ("tuili_queue_outages", "counter", "Failures of the queue", [q.outages for q in queues]),
        ("tuili_queue_in_hand", "gauge", "Requests worked on", [q.in_hand for q in queues]),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [
            f'{name}{{queue="{escape(queue.name)}"}} {value}'
            for queue, value in zip(queues, values, strict=True)
        ]
    name = "tuili_queue_requests"
    lines += [f"# HELP {name} Requests taken from the queue", f"# TYPE {name} counter"]
    lines += [
        f'{name}{{queue="{escape(queue.name)}",outcome="{outcome}"}} {queue.outcomes[outcome]}'
        for queue in queues
        for outcome in _OUTCOMES
    ]
    return lines if queues else []
