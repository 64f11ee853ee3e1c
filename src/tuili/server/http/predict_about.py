"""What TensorFlow Serving's REST API and KServe's V1 protocol tell of models."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from tuili.errors import Unsupported
from tuili.server.http.call import Call
from tuili.server.http.reply import Reply, json_reply
from tuili.server.tensorflow_serving import (
    NO_EXAMPLES,
    PREDICT,
    SIGNATURE,
    TYPES,
    VersionState,
    newest_of,
    version_states,
)


def predict_models(call: Call) -> Reply:
    """`{"models": [...]}`: the names of those that answer."""
    ready = call.dataplane.repository_index(ready_only=True)
    return json_reply({"models": sorted({str(entry["name"]) for entry in ready})})


def predict_status(call: Call) -> Reply:
    """The states of a model's versions, newest first, and whether it is `ready`."""
    model, version = call.match.model, call.match.version
    found = version_states(call.dataplane, model, version)
    ready = call.dataplane.model_ready(model, version)
    states = [_state(entry) for entry in found]
    return json_reply({"name": model, "ready": ready, "model_version_status": states})


def _state(found: VersionState) -> dict[str, Any]:
    told = {"error_code": "UNKNOWN" if found.reason else "OK", "error_message": found.reason}
    return {"version": found.version, "state": found.state.name, "status": told}


def classify_or_regress(call: Call) -> Reply:
    """What takes `tf.Example`s, which only a SavedModel knows how to read."""
    raise Unsupported(NO_EXAMPLES)


def predict_metadata(call: Call) -> Reply | Awaitable[Reply]:
    """Inputs and outputs as the `SignatureDef` that a SavedModel of the model would have."""
    dataplane, model, version = call.dataplane, call.match.model, call.match.version

    def told() -> Reply:
        metadata = dataplane.model_metadata(model, version)
        newest = version or newest_of(metadata)
        signature = {
            "inputs": {item["name"]: _tensor(item) for item in metadata["inputs"]},
            "outputs": {item["name"]: _tensor(item) for item in metadata["outputs"]},
            "method_name": PREDICT,
        }
        definition = {"signature_def": {SIGNATURE: signature}}
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
        "dtype": TYPES[item["datatype"]].name,
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": item["name"],
    }
