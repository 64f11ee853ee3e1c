"""The entries of `parameters` that tuili itself reads, with what each means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tuili.errors import InvalidModel, nearest
from tuili.server.repository.config import ModelConfig

MODEL_PARAMETERS: Final[Mapping[str, str]] = {
    "executor": "who runs an ONNX file: tuili, onnxruntime, or auto",
    "precision": "what products of an ONNX file are rounded to: f32 or bf16",
    "isolation": "where the model runs: process, none, or auto",
    "threads": "threads of one run; 0: all cores",
    "idempotent": "whether a request whose process died is run again",
    "host_load_timeout_s": "seconds after which loading or a warm-up run has failed",
    "host_run_timeout_s": "seconds after which a run is ended with its process",
    "host_max_rss_mb": "resident memory above which an idle process is replaced",
    "latency_target_ms": "time that learnt batch delays must leave room in for two runs",
    "batch_buckets": "numbers of rows that batches are filled up to, such as 1,4,16",
    "length_buckets": "sizes that the inputs' open dim is padded to, such as 32,64,128",
    "pad_value": "pad_value.NAME: what input NAME is padded with",
    "max_wait_ms": "expected time above which a request is refused",
    "max_concurrency": "requests under way at once",
    "max_client_concurrency": "requests under way at once per client",
    "max_rate": "requests per second",
    "max_client_rate": "requests per second per client",
    "rate_burst_s": "seconds whose requests may come at once",
    "degrade_to": "the model that answers what is refused for want of time",
    "degrade_cached": "whether an answer past its time is better than a refusal",
    "cpu_cores": "cores of each instance, such as 0-3;4-7",
    "max_instances": "up to how many instances the load may call for",
}

# The values of those that are words.
EXECUTORS: Final = ("auto", "tuili", "onnxruntime")


def choice(config: ModelConfig, key: str, default: str, known: Sequence[str]) -> str:
    """The word that a model's parameter has; InvalidModel for one that is not `known`."""
    found = config.parameters.get(key, default)
    if found not in known:
        raise InvalidModel(
            f"model '{config.name}': parameter {key!r} must be "
            f"{', '.join(known[:-1])} or {known[-1]}, got {found!r}.{nearest(found, known)}"
        )
    return found


def doubtful(backend: str, parameters: Mapping[str, str]) -> list[str]:
    """Sentences about entries that nobody reads; a Python model may read any."""
    if backend == "python":
        return []
    return [
        f"parameter {name!r} is not one that tuili reads.{nearest(name, MODEL_PARAMETERS)}"
        for name in parameters
        if name.partition(".")[0] not in MODEL_PARAMETERS
    ]
