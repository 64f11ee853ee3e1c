"""Statistics of one model version: for Triton's statistics extension and for `/metrics`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from tuili.server.telemetry.histogram import Histogram
from tuili.server.telemetry.unsettled import SizeRuns, Unsettled

# Sizes of batches told apart: each is a line of every scrape. Further ones count as the next power
# of two.
_MOST_SIZES: Final = 1000
_MOST_RESPONSES: Final = 1000  # told apart; a stream may be endless, memory must not grow with it
FAILURE_REASONS: tuple[str, ...] = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


class Duration:
    """How often something happened and how long it took altogether."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count `count` more that took `ns` together."""
        self.count += count
        self.ns += ns

    def json(self) -> dict[str, int]:
        """`{"count", "ns"}`."""
        return {"count": self.count, "ns": self.ns}


class BatchStatistics:
    """Durations of the runs of one batch size."""

    __slots__ = ("infer", "input", "output", "rows")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.input, self.infer, self.output = Duration(), Duration(), Duration()

    def json(self) -> dict[str, Any]:
        """One entry of `batch_stats`."""
        return {
            "batch_size": self.rows,
            "compute_input": self.input.json(),
            "compute_infer": self.infer.json(),
            "compute_output": self.output.json(),
        }


class ResponseStatistics:
    """What became of the answers with one number, of requests that get any number of them."""

    __slots__ = ("cancel", "fail", "infer", "output", "success")

    def __init__(self) -> None:
        self.infer, self.output = Duration(), Duration()
        self.success, self.fail, self.cancel = Duration(), Duration(), Duration()

    def json(self) -> dict[str, Any]:
        """One entry of `response_stats`."""
        return {
            "compute_infer": self.infer.json(),
            "compute_output": self.output.json(),
            "success": self.success.json(),
            "fail": self.fail.json(),
            "empty_response": Duration().json(),
            "cancel": self.cancel.json(),
        }


class Statistics:
    """Everything counted about one model version."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.pending = 0
        self.caches = False  # whether answers are looked for in a cache
        # While only shadow requests come, nothing is counted: they are no client's.
        self.muted = False
        # Told (queued, total) nanoseconds of every answer while a roll-out watches.
        self.watch: Callable[[int, int], None] | None = None
        self.clear()

    def clear(self) -> None:
        """Begin anew at nothing."""
        self.last_inference_ms = 0
        self.inference_count = 0
        self.execution_count = 0
        self.success, self.fail = Duration(), Duration()
        self.queue = Duration()
        self.compute_input, self.compute_infer = Duration(), Duration()
        self.compute_output = Duration()
        self.cache_hit, self.cache_miss = Duration(), Duration()
        self.failures = dict.fromkeys(FAILURE_REASONS, 0)
        self.batches: dict[int, BatchStatistics] = {}
        self.responses: dict[int, ResponseStatistics] = {}
        self.left: dict[str, int] = {}
        # Answered by a smaller model for want of time.
        self.degraded = 0
        self.request_ns, self.queue_ns, self.infer_ns = Histogram(), Histogram(), Histogram()
        self._unsettled = Unsettled()

    def record_batch(
        self, rows: int, requests: int, times_ns: tuple[int, int, int], left: str, blank: int = 0
    ) -> None:
        """One run of `rows` rows for `requests` requests; times: joining, running, splitting.

        `blank` of the rows were nobody's.
        """
        if self.muted:
            return
        self._unsettled.note_run(rows, requests, blank, times_ns, left)
        if self._unsettled.many:
            self.settle()

    def settle(self) -> None:
        """Count what was noted: before the numbers are read, or taken."""
        if not self._unsettled:
            return
        taken = self._unsettled.take()
        for same in taken.sizes():
            self._count(same)
        for left, number in taken.left.items():
            self.left[left] = self.left.get(left, 0) + number
        self.infer_ns.record_all(taken.runs[:, 4])
        queued, total = taken.waits()
        self.success.add(int(total.sum()), len(total))
        self.queue.add(int(queued.sum()), len(queued))
        self.request_ns.record_all(total)
        self.queue_ns.record_all(queued)

    def _count(self, same: SizeRuns) -> None:
        self.inference_count += same.rows * same.runs - same.blank
        self.execution_count += same.runs
        batch = self.batches.get(same.rows) or self._new_size(same.rows)
        # As Triton: a request is charged the whole time of the batch that it was part of.
        for charged, run, charged_ns, run_ns in zip(
            (self.compute_input, self.compute_infer, self.compute_output),
            (batch.input, batch.infer, batch.output),
            same.charged,
            same.times,
            strict=True,
        ):
            charged.add(charged_ns, same.requests)
            run.add(run_ns, same.runs)

    def _new_size(self, rows: int) -> BatchStatistics:
        if len(self.batches) >= _MOST_SIZES:
            rows = 1 << (rows - 1).bit_length()
        return self.batches.setdefault(rows, BatchStatistics(rows))

    def record_success(self, queued_ns: int, total_ns: int) -> None:
        """One request was answered."""
        if self.muted:
            return
        success, queue = self.success, self.queue
        success.count += 1
        success.ns += total_ns
        queue.count += 1
        queue.ns += queued_ns
        self.queue_ns.record(queued_ns)
        self.request_ns.record(total_ns)
        if self.watch is not None:
            self.watch(queued_ns, total_ns)

    def record_successes(self, arrived_ns: list[int], started_ns: int, now_ns: int) -> None:
        """Requests that arrived at these moments were answered by one run."""
        if self.muted or self.watch is not None:
            for arrived in arrived_ns:
                self.record_success(started_ns - arrived, now_ns - arrived)
            return
        self._unsettled.note_answers(arrived_ns, started_ns, now_ns)

    def record_response(
        self, number: int, became: Literal["success", "fail", "cancel"], infer_ns: int, end_ns: int
    ) -> None:
        """Answer `number` of a request, from 0: how long the model and its way out took."""
        if self.muted or number >= _MOST_RESPONSES:
            return
        found = self.responses.get(number)
        if found is None:
            found = self.responses[number] = ResponseStatistics()
        if became == "cancel":
            found.cancel.add(infer_ns)
            return
        found.infer.add(infer_ns)
        found.output.add(end_ns)
        (found.success if became == "success" else found.fail).add(infer_ns + end_ns)

    def record_failure(self, reason: str, total_ns: int) -> None:
        """One request was not answered: REJECTED, CANCELED, BACKEND or OTHER."""
        if self.muted:
            return
        self.fail.add(total_ns)
        self.failures[reason] += 1

    def record_step_failure(self) -> None:
        """A step of an ensemble failed: as Triton's, its metric counts that and its own failure."""
        if not self.muted:
            self.failures["OTHER"] += 1

    def json(self) -> dict[str, Any]:
        """One entry of `model_stats`."""
        self.settle()
        return {
            "name": self.model,
            "version": self.version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {
                "success": self.success.json(),
                "fail": self.fail.json(),
                "queue": self.queue.json(),
                "compute_input": self.compute_input.json(),
                "compute_infer": self.compute_infer.json(),
                "compute_output": self.compute_output.json(),
                "cache_hit": self.cache_hit.json(),
                "cache_miss": self.cache_miss.json(),
            },
            "batch_stats": [self.batches[rows].json() for rows in sorted(self.batches)],
            "memory_usage": [],
            "response_stats": {
                str(number): self.responses[number].json() for number in sorted(self.responses)
            },
        }
