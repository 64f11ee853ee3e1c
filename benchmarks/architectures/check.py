"""Runs one exported network on tuili and onnxruntime.

`python -m benchmarks.architectures.check FILE.onnx` prints one JSON object; `failure` says at which
step and why. A process of its own, for crashes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from tuili.artifact import Artifact
from tuili.bench.rounds import interleaved
from tuili.codegen.compilers import extra_flags
from tuili.compiler import Options, compile_cached, load
from tuili.tensors import Array

Feeds = dict[str, Array]
ROUNDS = 7
# Errors above this are looked at: does onnxruntime agree with itself?
CLOSE = 1e-4


def check(path: Path) -> dict[str, Any]:
    """Answers of both engines at two sizes, and their times at the first."""
    found: dict[str, Any] = {}
    try:
        session = _session(path)
        names = {value.name for value in session.get_inputs()}
        first, second = (_feeds(path, which, names) for which in (0, 1))
        expected = session.run(None, first)
    except Exception as error:
        return {"failure": f"onnxruntime: {_said(error)}"}
    found |= _scale(expected)
    start = time.perf_counter()
    try:
        artifact = compile_cached(path, Options())
        found |= _facts(artifact, time.perf_counter() - start)
        model = load(artifact.path, threads=1)
        found["error"] = difference(model.run(first), expected)
        found |= _other_size(session, model, second)
        if max(found["error"], found["error_other_size"] or 0.0) > CLOSE:
            found["unrest"] = max(unrest(path, feeds, session) for feeds in (first, second))
        own, other = interleaved(
            [lambda: model.run(first), lambda: session.run(None, first)], ROUNDS
        )
    except Exception as error:
        return found | {"failure": _said(error)}
    return found | {"ms": round(median(own), 3), "onnxruntime_ms": round(median(other), 3)}


def unrest(path: Path, feeds: Feeds, session: Any) -> float:
    """How far onnxruntime's own answer moves: other roundings of its own, inputs 1e-6 beside."""
    try:
        expected = session.run(None, feeds)
    except Exception:  # a size that the file does not run on
        return 0.0
    names = [value.name for value in session.get_outputs()]
    plain = _session(path, optimized=False).run(None, feeds)
    moved = session.run(None, _moved(feeds))
    return max(difference(dict(zip(names, each, strict=True)), expected) for each in (plain, moved))


def _moved(feeds: Feeds) -> Feeds:
    rng = np.random.default_rng(0)
    return {
        name: (array * (1 + 1e-6 * rng.standard_normal(array.shape))).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in feeds.items()
    }


def _session(path: Path, *, optimized: bool = True) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _feeds(path: Path, which: int, names: set[str]) -> Feeds:
    with np.load(path.with_suffix(".npz")) as saved:
        every = {key.split("/", 1)[1]: saved[key] for key in saved if key.startswith(f"{which}/")}
    return {name: array for name, array in every.items() if name in names}


def _other_size(session: Any, model: Any, feeds: Feeds) -> dict[str, Any]:
    """Nothing where the file itself runs on no other size."""
    try:
        expected = session.run(None, feeds)
    except Exception:
        return {"error_other_size": None}
    return {"error_other_size": difference(model.run(feeds), expected)}


def difference(found: Mapping[str, Array], expected: list[Array]) -> float:
    """The largest difference of any output, in standard deviations of that output."""
    worst = 0.0
    for a, b in zip(found.values(), expected, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"an output has shape {a.shape}; onnxruntime's has {b.shape}")
        if not b.size:
            continue
        own, other = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(other)
        if (finite != np.isfinite(own)).any():
            raise ValueError("other elements are infinite or no numbers than onnxruntime's")
        if finite.any():
            scale = float(other[finite].std()) or float(np.abs(other[finite]).max()) or 1.0
            worst = max(worst, float(np.abs(own - other)[finite].max()) / scale)
    return worst


def _scale(expected: list[Array]) -> dict[str, Any]:
    """Of the output that varies least."""
    arrays = [a.astype(np.float64) for a in expected if a.size]
    smallest = min(arrays, key=lambda a: float(np.nanstd(a)))
    return {"std": float(np.nanstd(smallest)), "largest": float(np.nanmax(np.abs(smallest)))}


def _facts(artifact: Artifact, compile_s: float) -> dict[str, Any]:
    code = sum(artifact.member(entry.file).size for entry in artifact.manifest.code)
    return {
        "compile_s": round(compile_s, 1),
        "code_kb": code >> 10,
        "host_steps": list(artifact.manifest.host_steps),
        "flags": " ".join(extra_flags()),
    }


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]))))
