"""The entries of `parameters` that tuili itself reads, with what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tuili.errors import nearest

MODEL_PARAMETERS: Final[Mapping[str, str]] = {
    "executor": "who runs an ONNX file: tuili, onnxruntime, or auto",
    "isolation": "where the model runs: process, none, or auto",
    "threads": "threads of one run",
    "idempotent": "whether a request whose process died is run again",
    "host_run_timeout_s": "seconds after which a run is ended with its process",
    "host_max_rss_mb": "resident memory above which an idle process is replaced",
}


def doubtful(backend: str, parameters: Mapping[str, str]) -> list[str]:
    """Sentences about entries that nobody reads; a Python model may read any."""
    if backend == "python":
        return []
    return [
        f"parameter {name!r} is not one that tuili reads.{nearest(name, MODEL_PARAMETERS)}"
        for name in parameters
        if name not in MODEL_PARAMETERS
    ]
