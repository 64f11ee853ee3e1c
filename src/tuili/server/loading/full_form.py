"""The whole configuration of a model, with defaults: what `/config` shows and its code sees."""

from __future__ import annotations

from typing import Any, Final

from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.repository.config import CONFIG_NAMES, ModelConfig
from tuili.server.repository.filling import filled
from tuili.server.scheduling.policy import BatchPolicy

Json = dict[str, Any]

_GROUP: Final[Json] = {
    "kind": "KIND_CPU",
    "count": 1,
    "gpus": [],
    "secondary_devices": [],
    "profile": [],
    "passive": False,
    "host_policy": "",
}
_DEFAULT_FILES: Final = {"onnxruntime": "model.onnx", "tuili": "model.onnx", "python": "model.py"}
_PLATFORMS: Final = {
    "onnxruntime": "onnxruntime_onnx",
    "tuili": "tuili_native",
    "mixed": "tuili_native",
    "ensemble": "ensemble",
}
_OPTIMIZATION: Final[Json] = {
    "priority": "PRIORITY_DEFAULT",
    "input_pinned_memory": {"enable": True},
    "output_pinned_memory": {"enable": True},
    "gather_kernel_buffer_threshold": 0,
    "eager_batching": False,
}


def whole_json(config: ModelConfig) -> Json:
    """The configuration with defaults, before the model has been asked: what its code sees."""
    signature = Signature(config.name, [], [], config.max_batch_size or 0)
    policy = config.policy or BatchPolicy()
    found = full_form(config, config.backend or "python", signature, policy)
    for role in ("input", "output"):
        found[role] = [
            {**_tensor_json(TensorRule(entry["name"], "FP32", ()), role), **entry}
            for entry in config.raw.get(role, ())
        ]
    return found


def full_form(config: ModelConfig, backend: str, signature: Signature, policy: BatchPolicy) -> Json:
    """What is written of a model over what holds where nothing is."""
    full = _defaults(config, backend, signature)
    if policy.merge and config.policy is None:
        full["dynamic_batching"] = {}
    written = {key: value for key, value in config.raw.items() if value or key not in full}
    merged = {**full, **written}
    if backend == "ensemble":
        # It runs nothing itself.
        merged |= {"backend": "", "instance_group": []}
        del merged["optimization"]
        merged.setdefault("model_transaction_policy", {})
    merged["instance_group"] = [
        {**_GROUP, "name": f"{config.name}_{at}", **group}
        for at, group in enumerate(merged["instance_group"])
    ]
    for role, rules in (("input", signature.inputs), ("output", signature.outputs)):
        # What was written of a tensor, over the defaults.
        entries = {entry["name"]: entry for entry in config.raw.get(role, ())}
        merged[role] = [
            {**_tensor_json(rule, role), **_written(entries.get(rule.name, {}))}
            for rule in rules.values()
        ]
    return filled(merged)


def _defaults(config: ModelConfig, backend: str, signature: Signature) -> Json:
    return {
        "name": config.name,
        "platform": _PLATFORMS.get(backend, ""),
        "backend": backend,
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": signature.max_batch_size,
        # Their place; what they are is written over it.
        "input": [],
        "output": [],
        "batch_input": [],
        "batch_output": [],
        # One that is not written has the model's name; those that are get a number.
        "instance_group": [{"name": config.name, "count": config.instances}],
        "optimization": dict(_OPTIMIZATION),
        "default_model_filename": config.model_filename or _DEFAULT_FILES.get(backend, ""),
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {},
        "model_warmup": [],
    }


def _written(entry: Json) -> Json:
    """What is said of a tensor, without what is left to the model."""
    left = {"data_type": "TYPE_INVALID", "dims": []}
    return {key: value for key, value in entry.items() if value != left.get(key)}


def _tensor_json(rule: TensorRule, role: str) -> Json:
    found: Json = {
        "name": rule.name,
        "data_type": CONFIG_NAMES[rule.datatype],
        "dims": list(rule.dims),
        "is_shape_tensor": False,
        "is_non_linear_format_io": False,
    }
    if rule.reshape is not None:
        found["reshape"] = {"shape": list(rule.reshape)}
    if role == "input":
        found |= {"format": "FORMAT_NONE", "allow_ragged_batch": False, "optional": rule.optional}
    else:
        found["label_filename"] = ""
    return found
