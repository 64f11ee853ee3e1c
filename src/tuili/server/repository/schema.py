"""The schema of a model configuration: Triton's `ModelConfig`, as a table of field types.

A type is a scalar ("string", "uint32", "float", "bool"), an enum, or the name of another message;
`[]` marks a repeated field, `{key}` a map. Fields that tuili does not use are listed too, because
a valid configuration must load.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

# The scalars, as messages call them.
SCALARS: Final = {
    "string": "a text",
    "int32": "a whole number",
    "int64": "a whole number",
    "uint32": "a whole number of at least 0",
    "uint64": "a whole number of at least 0",
    "float": "a number",
    "bool": "true or false",
}
# The least and the most that fit in a whole number.
INTEGERS: Final = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
ENUMS: Final[dict[str, Sequence[str]]] = {
    "DataType": [
        "TYPE_INVALID",
        "TYPE_BOOL",
        "TYPE_UINT8",
        "TYPE_UINT16",
        "TYPE_UINT32",
        "TYPE_UINT64",
        "TYPE_INT8",
        "TYPE_INT16",
        "TYPE_INT32",
        "TYPE_INT64",
        "TYPE_FP16",
        "TYPE_FP32",
        "TYPE_FP64",
        "TYPE_STRING",
        "TYPE_BF16",
    ],
    "GroupKind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
    "DeviceKind": ("KIND_NVDLA",),
    "Format": ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"),
    "BatchInputKind": [
        "BATCH_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
        "BATCH_ITEM_SHAPE",
        "BATCH_ITEM_SHAPE_FLATTEN",
    ],
    "BatchOutputKind": ("BATCH_SCATTER_WITH_INPUT_SHAPE",),
    "Priority": ("PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"),
    "TimeoutAction": ("REJECT", "DELAY"),
    "ControlKind": [
        "CONTROL_SEQUENCE_START",
        "CONTROL_SEQUENCE_READY",
        "CONTROL_SEQUENCE_END",
        "CONTROL_SEQUENCE_CORRID",
    ],
}

MESSAGES: Final[dict[str, dict[str, str]]] = {
    "ModelConfig": {
        "name": "string",
        "platform": "string",
        "backend": "string",
        "runtime": "string",
        "version_policy": "VersionPolicy",
        "max_batch_size": "int32",
        "input": "Input[]",
        "output": "Output[]",
        "batch_input": "BatchInput[]",
        "batch_output": "BatchOutput[]",
        "optimization": "Optimization",
        "dynamic_batching": "DynamicBatching",
        "sequence_batching": "SequenceBatching",
        "ensemble_scheduling": "Ensemble",
        "instance_group": "InstanceGroup[]",
        "default_model_filename": "string",
        "cc_model_filenames": "string{string}",
        "metric_tags": "string{string}",
        "parameters": "Parameter{string}",
        "model_warmup": "Warmup[]",
        "model_operations": "Operations",
        "model_transaction_policy": "TransactionPolicy",
        "model_repository_agents": "Agents",
        "response_cache": "ResponseCache",
        "model_metrics": "Metrics",
    },
    "Resource": {"name": "string", "global": "bool", "count": "uint32"},
    "RateLimiter": {"resources": "Resource[]", "priority": "uint32"},
    "SecondaryDevice": {"kind": "DeviceKind", "device_id": "int64"},
    "InstanceGroup": {
        "name": "string",
        "kind": "GroupKind",
        "count": "int32",
        "rate_limiter": "RateLimiter",
        "gpus": "int32[]",
        "secondary_devices": "SecondaryDevice[]",
        "profile": "string[]",
        "passive": "bool",
        "host_policy": "string",
    },
    "Reshape": {"shape": "int64[]"},
    "Input": {
        "name": "string",
        "data_type": "DataType",
        "format": "Format",
        "dims": "int64[]",
        "reshape": "Reshape",
        "is_shape_tensor": "bool",
        "allow_ragged_batch": "bool",
        "optional": "bool",
        "is_non_linear_format_io": "bool",
    },
    "Output": {
        "name": "string",
        "data_type": "DataType",
        "dims": "int64[]",
        "reshape": "Reshape",
        "label_filename": "string",
        "is_shape_tensor": "bool",
        "is_non_linear_format_io": "bool",
    },
    "BatchInput": {
        "kind": "BatchInputKind",
        "target_name": "string[]",
        "data_type": "DataType",
        "source_input": "string[]",
    },
    "BatchOutput": {
        "target_name": "string[]",
        "kind": "BatchOutputKind",
        "source_input": "string[]",
    },
    "Latest": {"num_versions": "uint32"},
    "All": {},
    "Specific": {"versions": "int64[]"},
    "VersionPolicy": {"latest": "Latest", "all": "All", "specific": "Specific"},
    "Graph": {"level": "int32"},
    "GraphShape": {"dim": "int64[]"},
    "LowerBound": {"batch_size": "int32", "input": "GraphShape{string}"},
    "GraphSpec": {
        "batch_size": "int32",
        "input": "GraphShape{string}",
        "graph_lower_bound": "LowerBound",
    },
    "Cuda": {
        "graphs": "bool",
        "busy_wait_events": "bool",
        "graph_spec": "GraphSpec[]",
        "output_copy_stream": "bool",
    },
    "Accelerator": {"name": "string", "parameters": "string{string}"},
    "Accelerators": {
        "gpu_execution_accelerator": "Accelerator[]",
        "cpu_execution_accelerator": "Accelerator[]",
    },
    "PinnedMemory": {"enable": "bool"},
    "Optimization": {
        "graph": "Graph",
        "priority": "Priority",
        "cuda": "Cuda",
        "execution_accelerators": "Accelerators",
        "input_pinned_memory": "PinnedMemory",
        "output_pinned_memory": "PinnedMemory",
        "gather_kernel_buffer_threshold": "uint32",
        "eager_batching": "bool",
    },
    "QueuePolicy": {
        "timeout_action": "TimeoutAction",
        "default_timeout_microseconds": "uint64",
        "allow_timeout_override": "bool",
        "max_queue_size": "uint32",
    },
    "DynamicBatching": {
        "preferred_batch_size": "int32[]",
        "max_queue_delay_microseconds": "uint64",
        "preserve_ordering": "bool",
        "priority_levels": "uint64",
        "default_priority_level": "uint64",
        "default_queue_policy": "QueuePolicy",
        "priority_queue_policy": "QueuePolicy{uint64}",
    },
    "Control": {
        "kind": "ControlKind",
        "int32_false_true": "int32[]",
        "fp32_false_true": "float[]",
        "bool_false_true": "bool[]",
        "data_type": "DataType",
    },
    "ControlInput": {"name": "string", "control": "Control[]"},
    "InitialState": {
        "data_type": "DataType",
        "dims": "int64[]",
        "zero_data": "bool",
        "data_file": "string",
        "name": "string",
    },
    "State": {
        "input_name": "string",
        "output_name": "string",
        "data_type": "DataType",
        "dims": "int64[]",
        "initial_state": "InitialState[]",
        "use_same_buffer_for_input_output": "bool",
        "use_growable_memory": "bool",
    },
    "Direct": {"max_queue_delay_microseconds": "uint64", "minimum_slot_utilization": "float"},
    "Oldest": {
        "max_candidate_sequences": "int32",
        "preferred_batch_size": "int32[]",
        "max_queue_delay_microseconds": "uint64",
        "preserve_ordering": "bool",
    },
    "SequenceBatching": {
        "direct": "Direct",
        "oldest": "Oldest",
        "max_sequence_idle_microseconds": "uint64",
        "control_input": "ControlInput[]",
        "state": "State[]",
        "iterative_sequence": "bool",
    },
    "Step": {
        "model_name": "string",
        "model_version": "int64",
        "input_map": "string{string}",
        "output_map": "string{string}",
        "model_namespace": "string",
    },
    "Ensemble": {"step": "Step[]", "max_inflight_requests": "uint32"},
    "Parameter": {"string_value": "string"},
    "WarmupInput": {
        "data_type": "DataType",
        "dims": "int64[]",
        "zero_data": "bool",
        "random_data": "bool",
        "input_data_file": "string",
    },
    "Warmup": {
        "name": "string",
        "batch_size": "uint32",
        "inputs": "WarmupInput{string}",
        "count": "uint32",
    },
    "Operations": {"op_library_filename": "string[]"},
    "TransactionPolicy": {"decoupled": "bool"},
    "Agent": {"name": "string", "parameters": "string{string}"},
    "Agents": {"agents": "Agent[]"},
    "ResponseCache": {"enable": "bool"},
    "MetricIdentifier": {"family": "string"},
    "HistogramOptions": {"buckets": "float[]"},
    "MetricControl": {
        "metric_identifier": "MetricIdentifier",
        "histogram_options": "HistogramOptions",
    },
    "Metrics": {"metric_control": "MetricControl[]"},
}

# Only one field of each of these groups may be set.
ONE_OF: Final[dict[str, tuple[str, ...]]] = {
    "ModelConfig": ("dynamic_batching", "sequence_batching", "ensemble_scheduling"),
    "VersionPolicy": ("latest", "all", "specific"),
    "SequenceBatching": ("direct", "oldest"),
}


def unfit(kind: str, number: float) -> str:
    """What a number of that kind must be, where this one is not; else ""."""
    low, high = INTEGERS.get(kind, (-inf, inf))
    if low <= number <= high:
        return ""
    return SCALARS[kind] if number < low or number != number else f"at most {high}"  # noqa: PLR0124 - NaN


def field_type(message: str, name: str) -> tuple[str, str]:
    """(kind, element type) of a field; kind is "one", "many" or "map:<key type>"."""
    declared = MESSAGES[message][name]
    if declared.endswith("[]"):
        return "many", declared[:-2]
    if declared.endswith("}"):
        element, _, key = declared[:-1].partition("{")
        return f"map:{key}", element
    return "one", declared
