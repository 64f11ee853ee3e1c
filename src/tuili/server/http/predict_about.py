"""What TensorFlow Serving's REST API and KServe's V1 protocol tell of models."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from tuili.errors import NotFound
from tuili.server.http.call import Call
from tuili.server.http.reply import Reply, json_reply

# States of the model-repository extension as those of tensorflow_serving/apis/get_model_status.
_STATES: Final = {
    "UNKNOWN": "START",
    "LOADING": "LOADING",
    "READY": "AVAILABLE",
    "UNLOADING": "UNLOADING",
    "UNAVAILABLE": "END",
}
_TYPES: Final = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64", "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32",
    "INT64": "DT_INT64", "FP16": "DT_HALF", "BF16": "DT_BFLOAT16", "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip


def predict_models(call: Call) -> Reply:
    """`{"models": [...]}`: the names of those that answer."""
    ready = call.dataplane.repository_index(ready_only=True)
    return json_reply({"models": sorted({str(entry["name"]) for entry in ready})})


def predict_status(call: Call) -> Reply:
    """The states of a model's versions, newest first, and whether it is `ready`."""
    model, version = call.match.model, call.match.version
    found = [
        entry
        for entry in call.dataplane.repository_index()
        if entry["name"] == model and version in ("", entry.get("version", ""))
    ]
    if not found:
        what = f"version {version} of model '{model}'" if version else f"model '{model}'"
        raise NotFound(f"Could not find any versions of {what}")
    found.sort(key=lambda entry: int(entry.get("version") or 0), reverse=True)
    ready = call.dataplane.model_ready(model, version)
    states = [_state(entry) for entry in found]
    return json_reply({"name": model, "ready": ready, "model_version_status": states})


def _state(entry: dict[str, Any]) -> dict[str, Any]:
    reason = str(entry.get("reason", ""))
    told = {"error_code": "UNKNOWN" if reason else "OK", "error_message": reason}
    state = _STATES[entry.get("state", "UNKNOWN")]
    return {"version": str(entry.get("version", "")), "state": state, "status": told}


def predict_metadata(call: Call) -> Reply | Awaitable[Reply]:
    """Inputs and outputs as the `SignatureDef` that a SavedModel of the model would have."""
    dataplane, model, version = call.dataplane, call.match.model, call.match.version

    def told() -> Reply:
        metadata = dataplane.model_metadata(model, version)
        newest = version or str(max(map(int, metadata["versions"]), default=0))
        signature = {
            "inputs": {item["name"]: _tensor(item) for item in metadata["inputs"]},
            "outputs": {item["name"]: _tensor(item) for item in metadata["outputs"]},
            "method_name": "tensorflow/serving/predict",
        }
        definition = {"signature_def": {"serving_default": signature}}
        return json_reply(
            {
                "model_spec": {"name": model, "signature_name": "", "version": newest},
                "metadata": {"signature_def": definition},
            }
        )

    return dataplane.when_live(model, told)


def _tensor(item: dict[str, Any]) -> dict[str, Any]:
    dims = [{"size": str(dim), "name": ""} for dim in item["shape"]]
    return {
        "dtype": _TYPES[item["datatype"]],
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": item["name"],
    }
