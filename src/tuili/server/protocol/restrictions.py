"""Restrictions: parts of the interface that only clients with a secret header may use, as Triton's.

A part is one of the categories below, over HTTP and gRPC alike. Other clients' requests are refused
before anything of them is looked at.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tuili.errors import InvalidArgument, Restricted, nearest

# Operations of HTTP (see its table of routes) and methods of gRPC, by category.
_OPERATIONS: Final[dict[str, tuple[str, ...]]] = {
    "health": ("server_live", "server_alive", "server_ready", "model_ready", "predict_status",
               "ServerLive", "ServerReady", "ModelReady", "Check", "GetModelStatus"),
    "metadata": ("server_metadata", "model_metadata", "openapi",
                 "predict_models", "predict_metadata", "ServerMetadata", "ModelMetadata",
                 "GetModelMetadata"),
    "inference": ("infer", "generate", "generate_stream", "job_submit", "job_status", "job_result",
                  "job_cancel", "feedback", "predict", "classify", "regress", "ModelInfer",
                  "ModelStreamInfer", "Predict", "Classify", "Regress", "MultiInference"),
    "shared-memory": ("system_shm_status", "system_shm_register", "system_shm_unregister",
                      "cuda_shm_status", "cuda_shm_register", "cuda_shm_unregister",
                      "SystemSharedMemoryStatus", "SystemSharedMemoryRegister",
                      "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
                      "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    "model-config": ("model_config", "ModelConfig"),
    "model-repository": ("repository_index", "repository_load", "repository_unload", "rollouts",
                         "rollout", "rollout_action", "history", "model_rollback", "model_labels",
                         "model_label", "RepositoryIndex", "RepositoryModelLoad",
                         "RepositoryModelUnload"),
    "statistics": ("all_statistics", "model_statistics", "ModelStatistics"),
    "trace": ("trace_setting", "TraceSetting"),
    "logging": ("logging", "LogSettings"),
}  # fmt: skip
CATEGORY: Final = {name: kind for kind, names in _OPERATIONS.items() for name in names}


class Restrictions:
    """Which categories ask for which header; false while none does."""

    def __init__(
        self, keys: Mapping[str, tuple[str, str]] | None = None, what: str = "API", prefix: str = ""
    ) -> None:
        self._keys = dict(keys or {})
        self._what, self._prefix = what, prefix

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, operation: str, header: Callable[[str], str]) -> None:
        """Refuse the operation unless `header(name)` has what its category asks for."""
        wanted = self._keys.get(CATEGORY.get(operation, ""))
        if wanted is None:
            return
        name = self._prefix + wanted[0]
        if not hmac.compare_digest(header(name).encode(), wanted[1].encode()):
            raise Restricted(f"This {self._what} is restricted, expecting header '{name}'")


def read_keys(given: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`CATEGORY,CATEGORY:HEADER=VALUE`, each category at most once."""
    keys: dict[str, tuple[str, str]] = {}
    for text in given:
        categories, _, pair = text.partition(":")
        header, equals, value = pair.partition("=")
        if not equals or not header or not value:
            raise InvalidArgument(f"expected CATEGORY,..:HEADER=VALUE, got {text!r}")
        for category in categories.split(","):
            if category not in _OPERATIONS:
                known = ", ".join(_OPERATIONS)
                raise InvalidArgument(
                    f"unknown restricted api '{category}'.{nearest(category, _OPERATIONS)} "
                    f"Known: {known}"
                )
            if category in keys:
                raise InvalidArgument(
                    f"restricted api '{category}' can not be specified in multiple groups"
                )
            keys[category] = (header.lower(), value)
    return keys
