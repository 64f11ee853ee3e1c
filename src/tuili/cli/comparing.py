"""How two published versions differ: by their records, and by running them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from tuili.bench.feeds import random_feeds
from tuili.errors import Unsupported
from tuili.server.registry.record import Record, changes
from tuili.tensors import Array

Row = tuple[str, ...]
_ROUNDS: Final = 30
_VARIETY: Final = 8


def compared(old: Record, new: Record) -> list[Row]:
    """What the records tell; rows of (what, old, new, change)."""
    rows: list[Row] = [("signature", "", "", "; ".join(changes(old, new)) or "same")]
    rows.append(_numbers("bytes", old.size_bytes, new.size_bytes))
    rows.append(_texts("digest", old.digest[7:19], new.digest[7:19]))
    rows += [
        _numbers(f"metric {key}", old.metrics.get(key), new.metrics.get(key))
        for key in sorted({*old.metrics, *new.metrics})
    ]
    rows += _maps("param", old.parameters, new.parameters)
    rows += _maps("option", old.provenance.options, new.provenance.options)
    for what in ("source_sha256", "calibration_sha256", "producer"):
        before, after = getattr(old.provenance, what), getattr(new.provenance, what)
        if before != after:
            rows.append(_texts(what, before[:20], after[:20]))
    return rows


def measured(old: Path, new: Path) -> list[Row]:
    """Both versions run on the same random inputs, turn by turn, on one thread."""
    import tuili

    models = [tuili.load(_artifact(each)) for each in (old, new)]
    feeds = [random_feeds(models[0].inputs, seed=seed) for seed in range(_VARIETY)]
    answers = [[model.run(each) for each in feeds] for model in models]
    times: list[list[float]] = [[], []]
    for at in range(_ROUNDS):
        for model, found in zip(models, times, strict=True):
            start = time.perf_counter()
            model.run(feeds[at % _VARIETY])
            found.append((time.perf_counter() - start) * 1e3)
    medians = [float(np.median(found)) for found in times]
    return [_numbers("median ms, 1 thread", *medians), *_agreement(*answers)]


def _artifact(version: Path) -> Path:
    for name in ("model.tuili", "model.tuiliz"):
        if (version / name).exists():
            return version / name
    raise Unsupported(f"{version} holds no compiled model; --measure runs compiled ones only")


def _agreement(old: list[dict[str, Array]], new: list[dict[str, Array]]) -> list[Row]:
    rows: list[Row] = []
    for name in old[0]:
        pairs = [(a[name], b[name]) for a, b in zip(old, new, strict=True) if name in b]
        if not pairs or any(a.shape != b.shape or a.dtype.kind not in "fiub" for a, b in pairs):
            rows.append((f"output {name}", "", "", "cannot be compared"))
            continue
        apart = max(float(np.max(np.abs(_wide(a) - _wide(b)), initial=0)) for a, b in pairs)
        rows.append((f"output {name}: largest difference", "", "", f"{apart:.3g}"))
        if pairs[0][0].ndim and pairs[0][0].shape[-1] > 1:
            same = [np.argmax(a, -1) == np.argmax(b, -1) for a, b in pairs]
            share = float(np.mean([np.mean(each) for each in same]))
            rows.append((f"output {name}: same top 1", "", "", f"{share:.1%}"))
    return rows


def _wide(array: Array) -> Array:
    return array.astype(np.float64)


def _numbers(what: str, old: float | None, new: float | None) -> Row:
    shown = ["" if value is None else f"{value:.6g}" for value in (old, new)]
    if old is None or new is None:
        return (what, *shown, "new" if old is None else "gone")
    share = f" ({(new - old) / abs(old):+.1%})" if old else ""
    return (what, *shown, "same" if new == old else f"{new - old:+.6g}{share}")


def _texts(what: str, old: str, new: str) -> Row:
    return what, old, new, "same" if old == new else "changed"


def _maps(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Row]:
    keys = sorted({*old, *new})
    return [
        _texts(f"{what} {key}", old.get(key, ""), new.get(key, ""))
        for key in keys
        if old.get(key) != new.get(key)
    ]
