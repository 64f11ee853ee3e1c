"""The Prometheus lines of roll-outs: states, weights, events, and every variant's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from tuili.server.control.conductor import Conductor
from tuili.server.rollout import buckets
from tuili.server.rollout.states import State
from tuili.server.rollout.tally import Tally
from tuili.server.telemetry.prometheus import escape

# Every fourth octave boundary is too coarse, every bucket too many: four to an octave.
_STRIDE: Final = buckets.PER_OCTAVE // 4
_COUNTS: Final = (
    ("tuili_variant_requests", "Requests that the split gave a variant", "requests"),
    ("tuili_variant_errors", "Requests that failed by the variant's fault", "errors"),
    ("tuili_variant_nans", "Answers with NaN", "nans"),
    ("tuili_variant_compared", "Shadowed answers that were compared", "compared"),
    ("tuili_variant_differing", "Shadowed answers that differ", "differing"),
    ("tuili_variant_shed", "Shadow requests that were dropped under load", "shed"),
)


def rollout_lines(conductor: Conductor) -> list[str]:
    """All lines; none where nothing was ever rolled out."""
    if not conductor.world.seq:
        return []
    return [*_states(conductor), *_events(conductor), *_variants(conductor)]


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _states(conductor: Conductor) -> Iterator[str]:
    yield from _head("tuili_rollout_state", "gauge", "1 for the state that a roll-out is in")
    for rollout in conductor.world.rollouts.values():
        labels = f'model="{escape(rollout.plan.model)}",rollout="{escape(rollout.name)}"'
        for state in State:
            value = int(rollout.state is state)
            yield f'tuili_rollout_state{{{labels},state="{state.value}"}} {value}'
    yield from _head("tuili_model_pointer", "gauge", "The version that answers for a model")
    for name, model in conductor.world.models.items():
        if model.pointer is not None:
            yield f'tuili_model_pointer{{model="{escape(name)}"}} {model.pointer}'


def _events(conductor: Conductor) -> Iterator[str]:
    yield from _head("tuili_rollout_events", "counter", "Entries of the journal by event")
    for (model, event), count in conductor.events.items():
        yield f'tuili_rollout_events{{model="{escape(model)}",event="{event}"}} {count}'


def _variants(conductor: Conductor) -> Iterator[str]:
    rows: list[tuple[str, Tally]] = []
    yield from _head("tuili_variant_weight", "gauge", "Percent of the traffic of a candidate")
    for model, split in conductor.reconciler.splits.items():
        for variant, tally in split.tallies.items():
            labels = (
                f'model="{escape(model)}",rollout="{escape(split.rollout.name)}",'
                f'variant="{escape(variant)}",version="{split.numbers[variant]}"'
            )
            rows.append((labels, tally))
            if variant in split.router.weights:
                yield f"tuili_variant_weight{{{labels}}} {split.router.weights[variant]:g}"
    for name, text, attribute in _COUNTS:
        yield from _head(name, "gauge", f"{text}, of the present step")
        for labels, tally in rows:
            yield f"{name}{{{labels}}} {getattr(tally, attribute)}"
    for kind in ("latency", "queue", "compute"):
        name = f"tuili_variant_{kind}_seconds"
        yield from _head(name, "gaugehistogram", f"The {kind} of a variant, of the present step")
        for labels, tally in rows:
            yield from _histogram(name, labels, tally.durations[kind])


def _histogram(name: str, labels: str, counts: list[int]) -> Iterator[str]:
    upto = list(accumulate(counts))
    for at in range(_STRIDE - 1, buckets.SIZE, _STRIDE):
        seconds = buckets.seconds_of(at) * buckets.ratio_of(1) ** 0.5
        yield f'{name}_bucket{{{labels},le="{seconds:.6g}"}} {upto[at]}'
    yield f'{name}_bucket{{{labels},le="+Inf"}} {upto[-1]}'
    total = sum(count * buckets.seconds_of(at) for at, count in enumerate(counts) if count)
    yield f"{name}_gsum{{{labels}}} {total:.9g}"
    yield f"{name}_gcount{{{labels}}} {upto[-1]}"
