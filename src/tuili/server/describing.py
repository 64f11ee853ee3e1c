"""What a server says of itself and of its models: metadata, statistics and the metrics text.

All but the text are dictionaries with the field names of the protocol (KServe v2 and Triton).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tuili import __version__
from tuili.errors import InvalidArgument
from tuili.server.beside import FrontEnds
from tuili.server.control.reconciler import Front
from tuili.server.protocol.signature import TensorRule
from tuili.server.serving.servable import Servable
from tuili.server.steps import Steps
from tuili.server.telemetry.host_metrics import HostState, host_lines
from tuili.server.telemetry.prometheus import write_exposition
from tuili.server.telemetry.statistics import Statistics

Json = dict[str, Any]
# By model and version; "" is the version that answers who names none.
Live = Mapping[str, Mapping[str, Front]]

_VERSION: Final = re.compile(r"[0-9]{1,19}")
_EXTENSIONS: Final[tuple[str, ...]] = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "sequence",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)


def server_metadata(server_id: str, *, lends: bool) -> Json:
    """`{"name", "version", "extensions"}`; it `lends` when clients may share their memory."""
    extensions: list[str] = list(_EXTENSIONS)
    if lends:
        extensions.append("system_shared_memory")
    return {"name": server_id, "version": __version__, "extensions": extensions}


def model_metadata(name: str, model: Front, versions: Sequence[str]) -> Json:
    """`{"name", "versions", "platform", "inputs", "outputs"}`."""
    signature = model.signature
    batched = signature.max_batch_size > 0
    return {
        "name": name,
        "versions": list(versions),
        "platform": model.config["platform"] or model.config["backend"],
        "inputs": [_tensor_json(rule, batched) for rule in signature.inputs.values()],
        "outputs": [_tensor_json(rule, batched) for rule in signature.outputs.values()],
    }


def statistics_of(live: Live, model: str = "", version: str = "") -> list[Statistics]:
    """What counts one model, of one version of it, or ("") of all.

    InvalidArgument for what is not live.
    """
    if model and (model not in live or (version and version not in live[model])):
        checked_version(version)
        what = f"'{model}' is not available"
        if model in live:
            what = f"version is not available for model '{model}'"
        raise InvalidArgument(f"requested model {what}")
    return [
        front.statistics
        for name, number, front in _numbered(live)
        if model in ("", name) and version in ("", number)
    ]


def write_metrics(
    live: Live, front_ends: FrontEnds | None, more: Sequence[str], *, ready: bool
) -> Steps[list[bytes]]:
    """The Prometheus exposition of everything that is counted; `more` are lines of others."""
    fronts = [front for _, _, front in _numbered(live)]
    for front in fronts:
        counted = front.statistics
        elsewhere = front_ends.pending(counted.model, counted.version) if front_ends else 0
        # What waits in an ensemble, waits for one of its steps and counts there.
        waiting = front.pending() if isinstance(front, Servable) else 0
        counted.pending = waiting + elsewhere
    hosts = [
        HostState(host.name, at, host.up, host.policy.deaths, host.rss_bytes())
        for front in fronts
        for at, host in enumerate(front.hosts)
    ]
    counts = [front.statistics for front in fronts]
    return write_exposition(counts, ready, [*host_lines(hosts), *more])


def checked_version(version: str) -> str:
    """The version, if it is "" or a whole number; InvalidArgument for any other text."""
    if version and not _VERSION.fullmatch(version):
        raise InvalidArgument(
            f"failed to get model version from specified version string '{version}' (details: "
            "it must be a whole number), version should be an integral value > 0"
        )
    return version


def _numbered(live: Live) -> list[tuple[str, str, Front]]:
    """All versions under their numbers, in order."""
    return [
        (name, number, front)
        for name, versions in sorted(live.items())
        for number, front in sorted(versions.items())
        if number
    ]


def _tensor_json(rule: TensorRule, batched: bool) -> Json:
    dims = [-1, *rule.dims] if batched else list(rule.dims)
    return {"name": rule.name, "datatype": rule.datatype, "shape": dims}
