"""The timeline of one run in Chrome's trace-event form, for Perfetto or chrome://tracing.

Format: "Trace Event Format", complete events (`ph: X`), times in microseconds.
"""

from __future__ import annotations

from typing import Any

from tuili.bench.explain.timing import Timed


def trace(timed: Timed) -> dict[str, Any]:
    """A document with one event per kernel call and thread."""
    threads = sorted({span.thread for span in timed.spans})
    name = timed.compiled.program.name
    names: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}},
        *(
            {
                "ph": "M",
                "pid": 1,
                "tid": at,
                "name": "thread_name",
                "args": {"name": f"thread {at}"},
            }
            for at in threads
        ),
    ]
    costs = {id(each.call): each for each in timed.calls}
    events = [
        {
            "ph": "X",
            "pid": 1,
            "tid": span.thread,
            "ts": span.start_ns / 1e3,
            "dur": (span.end_ns - span.start_ns) / 1e3,
            "name": span.call.label,
            "cat": "kernel",
            "args": {
                "kernel": span.call.kernel.name,
                "flops": costs[id(span.call)].flops,
                "bytes": costs[id(span.call)].bytes,
            },
        }
        for span in timed.spans
    ]
    return {"displayTimeUnit": "ns", "traceEvents": [*names, *events]}
