"""Every path with every verb, and paths that are nearly right."""

from __future__ import annotations

from tests.conformance.triton.differential.wire import Case, http

_VERBS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
_PATHS = (
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/stats",
    "/v2/models/add_sub",
    "/v2/models/add_sub/ready",
    "/v2/models/add_sub/config",
    "/v2/models/add_sub/stats",
    "/v2/models/add_sub/versions/1",
    "/v2/models/add_sub/versions/1/ready",
    "/v2/models/add_sub/versions/1/config",
    "/v2/models/add_sub/versions/1/stats",
    "/v2/models/add_sub/infer",
    "/v2/models/add_sub/versions/1/infer",
    "/v2/models/writer/generate",
    "/v2/models/writer/generate_stream",
    "/v2/models/add_sub/trace/setting",
    "/v2/models/add_sub/versions/1/trace/setting",
    "/v2/models/writer/versions/1/generate",
    "/v2/models/writer/versions/1/generate_stream",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/repository/index",
    "/v2/repository/main/index",
    "/v2/repository/main/models/nobody/load",
    "/v2/repository/main/models/nobody/unload",
    "/v2/repository/models/nobody/load",
    "/v2/repository/models/nobody/unload",
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/region/r/status",
    "/v2/systemsharedmemory/region/r/register",
    "/v2/systemsharedmemory/unregister",
    "/v2/systemsharedmemory/region/r/unregister",
    "/v2/cudasharedmemory/status",
    "/v2/cudasharedmemory/region/r/status",
    "/v2/cudasharedmemory/region/r/register",
    "/v2/cudasharedmemory/unregister",
)
_NEARLY = (
    "/",
    "/v1",
    "/v2/",
    "/v2/health",
    "/v2/health/",
    "/v2/health/live/",
    "/v2/health/dead",
    "/v2/models",
    "/v2/models/",
    "/v2/models/add_sub/",
    "/v2/models/add_sub/nothing",
    "/v2/models/add_sub/versions",
    "/v2/models/add_sub/versions/",
    "/v2/models/add_sub/versions/abc",
    "/v2/models/add_sub/versions/-1",
    "/v2/models/add_sub/versions/0",
    "/v2/models/add_sub/versions/01",
    "/v2/models/add_sub/versions/9",
    "/v2/models/add_sub/versions/99999999999999999999",
    "/v2/models/add_sub/versions/9/ready",
    "/v2/models/add_sub/versions/9/config",
    "/v2/models/add_sub/versions/9/stats",
    "/v2/models/versions",
    "/v2/models/versions/versions/1",
    "/v2/models/versions/versions/2",
    "/v2/models/versions/versions/2/ready",
    "/v2/models/versions/versions/3",
    "/v2/models/nobody",
    "/v2/models/nobody/ready",
    "/v2/models/nobody/config",
    "/v2/models/nobody/stats",
    "/v2/models/nobody/versions/1",
    "/v2/models/nobody/trace/setting",
    "/v2/models/spare",
    "/v2/models/spare/ready",
    "/v2/models/broken",
    "/v2/models/broken/ready",
    "/v2/models/broken/config",
    "/v2/models/add%5Fsub",
    "/v2/models/..%2f..%2fetc",
    "/v2/models/add_sub?x=1",
    "/v2?x",
    "/v2/repository",
    "/v2/repository/models",
    "/v2/repository/index/",
    "/metrics",
    "/v2/systemsharedmemory",
    "/v2/systemsharedmemory/region",
    "/v2/trace",
    "/v2/logging/",
    "//v2",
)
METADATA = ("everything", "matrix", "text", "accumulate", "repeat", "ensemble", "reshaped", "slow")


def cases() -> list[Case]:
    """All of them."""
    found = [http(f"path/{verb} {path}", verb, path) for path in _PATHS for verb in _VERBS]
    found += [http(f"near/GET {path}", "GET", path) for path in _NEARLY]
    found += [
        http(f"described/{model}{part}", "GET", f"/v2/models/{model}{part}")
        for model in METADATA
        for part in ("", "/config", "/ready")
    ]
    return found
