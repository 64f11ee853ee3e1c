"""Every HTTP route in one table, and the finding of the route of a request.

Patterns are written as in the protocol's documents; a part in brackets may be missing.  Earlier
rows win, so the statistics of all models come before the model that might be called "stats".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_VERSION: Final = re.compile(r"[0-9]+", re.ASCII)

# (methods, pattern, operation): the operation names a function of `operations` or `inference`.
ROUTES: Final = (
    ("GET", "/v2", "server_metadata"),
    ("GET", "/v2/health/live", "server_live"),
    ("GET", "/v2/health/ready", "server_ready"),
    ("GET", "/v2/models/stats", "all_statistics"),
    ("GET", "/v2/models/{model}[/versions/{version}]", "model_metadata"),
    ("GET", "/v2/models/{model}[/versions/{version}]/ready", "model_ready"),
    ("GET", "/v2/models/{model}[/versions/{version}]/config", "model_config"),
    ("GET", "/v2/models/{model}[/versions/{version}]/stats", "model_statistics"),
    ("POST", "/v2/models/{model}[/versions/{version}]/infer", "infer"),
    ("POST", "/v2/models/{model}[/versions/{version}]/generate", "generate"),
    ("POST", "/v2/models/{model}[/versions/{version}]/generate_stream", "generate_stream"),
    ("POST", "/v2/models/{model}[/versions/{version}]/jobs", "job_submit"),
    ("GET", "/v2/jobs/{job}", "job_status"),
    ("GET", "/v2/jobs/{job}/result", "job_result"),
    ("DELETE", "/v2/jobs/{job}", "job_cancel"),
    ("GET POST", "/v2/trace/setting", "trace_setting"),
    ("GET POST", "/v2/models/{model}/trace/setting", "trace_setting"),
    ("GET POST", "/v2/logging", "logging"),
    ("POST", "/v2/repository[/{repository}]/index", "repository_index"),
    ("POST", "/v2/repository[/{repository}]/models/{model}/load", "repository_load"),
    ("POST", "/v2/repository[/{repository}]/models/{model}/unload", "repository_unload"),
    ("GET", "/v2/systemsharedmemory[/region/{region}]/status", "system_shm_status"),
    ("POST", "/v2/systemsharedmemory[/region/{region}]/register", "system_shm_register"),
    ("POST", "/v2/systemsharedmemory[/region/{region}]/unregister", "system_shm_unregister"),
    ("GET", "/v2/cudasharedmemory[/region/{region}]/status", "cuda_shm_status"),
    ("POST", "/v2/cudasharedmemory[/region/{region}]/register", "cuda_shm_register"),
    ("POST", "/v2/cudasharedmemory[/region/{region}]/unregister", "cuda_shm_unregister"),
    ("GET POST", "/v2/rollouts", "rollouts"),
    ("GET", "/v2/rollouts/{rollout}", "rollout"),
    ("POST", "/v2/rollouts/{rollout}/{action}", "rollout_action"),
    ("GET", "/v2[/models/{model}]/history", "history"),
    ("POST", "/v2/models/{model}/rollback", "model_rollback"),
    ("POST", "/v2/models/{model}/feedback", "feedback"),
    ("GET", "/v2/models/{model}/labels", "model_labels"),
    ("POST DELETE", "/v2/models/{model}/labels/{label}", "model_label"),
    ("POST", "/v2/models/{model}/labels/{label}/infer", "infer"),
    ("POST", "/v1/models/{model}[/versions/{version}]:predict", "predict"),
    ("POST", "/v1/models/{model}/labels/{label}:predict", "predict"),
    ("POST", "/v1/models/{model}[/versions/{version}]:classify", "classify"),
    ("POST", "/v1/models/{model}[/versions/{version}]:regress", "regress"),
    ("POST", "/v1/models/{model}/labels/{label}:classify", "classify"),
    ("POST", "/v1/models/{model}/labels/{label}:regress", "regress"),
    ("GET", "/", "server_alive"),
    ("GET", "/v1/models", "predict_models"),
    ("GET", "/v1/models/{model}[/versions/{version}]", "predict_status"),
    ("GET", "/v1/models/{model}[/versions/{version}]/metadata", "predict_metadata"),
    ("GET", "/openapi.json", "openapi"),
)


@dataclass(frozen=True, slots=True)
class Match:
    """The operation a request asks for, and the names that its path gives."""

    operation: str
    model: str = ""
    version: str = ""
    region: str = ""
    repository: str = ""
    job: str = ""
    label: str = ""
    rollout: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """The path is known, but not with this method."""

    allowed: tuple[str, ...]


_Row = tuple[frozenset[str], tuple[str, ...], str]


def expand(pattern: str) -> list[str]:
    """The patterns that one with an optional part in brackets stands for."""
    if "[" not in pattern:
        return [pattern]
    before, _, rest = pattern.partition("[")
    optional, _, after = rest.partition("]")
    return [before + after, before + optional + after]


def _rows(routes: tuple[tuple[str, str, str], ...]) -> list[_Row]:
    return [
        (frozenset(methods.split()), tuple(path[1:].split("/")), operation)
        for methods, pattern, operation in routes
        for path in expand(pattern)
    ]


class RouteTable:
    """Finds the row of a path; simple, because its answers are remembered with the head."""

    def __init__(self, routes: tuple[tuple[str, str, str], ...] = ROUTES) -> None:
        self._rows = _rows(routes)

    def find(self, method: str, path: tuple[str, ...]) -> Match | WrongMethod | None:
        """The match of `path` (decoded segments), None when there is no such path."""
        found = self._find(method, path)
        at = path.index("models") + 1 if found is None and "models" in path[1:-2] else 0
        if at:
            # NAMESPACE/NAME in two segments, as clients that do not escape slashes send it.
            name = f"{path[at]}/{path[at + 1]}"
            found = self._find(method, (*path[:at], name, *path[at + 2 :]))
        return found

    def _find(self, method: str, path: tuple[str, ...]) -> Match | WrongMethod | None:
        allowed: set[str] = set()
        for methods, segments, operation in self._rows:
            names = _fit(segments, path)
            if names is None:
                continue
            if method in methods:
                return Match(operation, **names)
            allowed |= methods
        return WrongMethod(tuple(sorted(allowed))) if allowed else None


def _fit(segments: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str] | None:
    """The names in `path` when it has the form of `segments`."""
    if len(segments) != len(path):
        return None
    names: dict[str, str] = {}
    for segment, part in zip(segments, path, strict=True):
        if not segment.startswith("{"):
            if segment != part:
                return None
            continue
        name, _, verb = segment[1:].partition("}")
        found = part.removesuffix(verb)
        if not found or not part.endswith(verb):
            return None
        if name == "version":
            if _VERSION.fullmatch(found) is None:
                return None
            found = found.lstrip("0") or "0"  # versions are numbers: 01 is 1
        names[name] = found
    return names
