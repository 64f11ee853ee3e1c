"""What TensorFlow Serving's clients, and KServe V1's, are told of models by any transport.

Numbers and names are those of tensorflow/core/framework/types.proto and of
tensorflow_serving/apis/get_model_status.proto.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tuili.errors import InvalidArgument, NotFound
from tuili.server.dataplane import DataPlane

# Models here have one signature; TensorFlow calls that of an export which names none so.
SIGNATURE: Final = "serving_default"
PREDICT: Final = "tensorflow/serving/predict"
NO_EXAMPLES: Final = (
    "classify and regress take tf.Example protos, which only the parser inside a SavedModel can "
    "read; send the values of the model's inputs to predict instead"
)


class Named(NamedTuple):
    """A member of an enumeration."""

    name: str
    number: int


TYPES: Final[dict[str, Named]] = {
    "FP32": Named("DT_FLOAT", 1),
    "FP64": Named("DT_DOUBLE", 2),
    "INT32": Named("DT_INT32", 3),
    "UINT8": Named("DT_UINT8", 4),
    "INT16": Named("DT_INT16", 5),
    "INT8": Named("DT_INT8", 6),
    "BYTES": Named("DT_STRING", 7),
    "INT64": Named("DT_INT64", 9),
    "BOOL": Named("DT_BOOL", 10),
    "BF16": Named("DT_BFLOAT16", 14),
    "UINT16": Named("DT_UINT16", 17),
    "FP16": Named("DT_HALF", 19),
    "UINT32": Named("DT_UINT32", 22),
    "UINT64": Named("DT_UINT64", 23),
}
# By the states of the model-repository extension.
_STATES: Final[dict[str, Named]] = {
    "UNKNOWN": Named("START", 10),
    "LOADING": Named("LOADING", 20),
    "READY": Named("AVAILABLE", 30),
    "UNLOADING": Named("UNLOADING", 40),
    "UNAVAILABLE": Named("END", 50),
}


class VersionState(NamedTuple):
    """How it stands with one version; `reason` is why it is not there."""

    version: str
    state: Named
    reason: str


def version_states(dataplane: DataPlane, model: str, version: str) -> list[VersionState]:
    """Of a model's versions, newest first, or of one; NotFound where there is none."""
    found = [
        VersionState(
            str(entry.get("version", "")),
            _STATES[entry.get("state", "UNKNOWN")],
            str(entry.get("reason", "")),
        )
        for entry in dataplane.repository_index()
        if entry["name"] == model and version in ("", entry.get("version", ""))
    ]
    if not found:
        what = f"version {version} of model '{model}'" if version else f"model '{model}'"
        raise NotFound(f"Could not find any versions of {what}")
    return sorted(found, key=lambda each: int(each.version or 0), reverse=True)


def newest_of(metadata: dict[str, Any]) -> str:
    """The newest version that a model's metadata name; "0" where they name none."""
    return str(max(map(int, metadata["versions"]), default=0))


def check_signature(name: Any) -> None:
    """InvalidArgument for a signature that is not the one."""
    if name not in (None, "", SIGNATURE):
        raise InvalidArgument(
            f"signature_name {name!r}: the model has one signature, '{SIGNATURE}'"
        )
