"""The OpenAPI document of the HTTP interface, made of the route table."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from tuili.server.http.routes import ROUTES, expand
from tuili.server.protocol.datatypes import NUMPY

_NAMES: Final = re.compile(r"\{(\w+)\}")

_SUMMARY: Final = {
    "server_metadata": "Name, version and extensions of the server",
    "server_live": "Whether the process works",
    "server_ready": "Whether requests should be sent here",
    "server_alive": "Whether the process works, as KServe V1 asks for it",
    "all_statistics": "Statistics of all models",
    "model_metadata": "Inputs, outputs and versions of a model",
    "model_ready": "Whether a model version answers",
    "model_config": "Configuration of a model, defaults filled in",
    "model_statistics": "Statistics of a model",
    "infer": "Run the model on tensors, as JSON or with the binary tensor extension",
    "generate": "Run the model on plain JSON keys, one answer",
    "generate_stream": "Run the model on plain JSON keys, answers as server-sent events",
    "job_submit": "Run the model later: the answer is fetched by the job's id, or posted",
    "job_status": "State of a job",
    "job_result": "Answer of a job; 202 while there is none",
    "job_cancel": "Take a job back, or forget its answer",
    "trace_setting": "Read or merge trace settings",
    "logging": "Read or merge log settings",
    "repository_index": "Every model of the repository with its state",
    "repository_load": "Load or reload a model",
    "repository_unload": "Unload a model",
    "system_shm_status": "Registered regions of system shared memory",
    "system_shm_register": "Register a region of system shared memory",
    "system_shm_unregister": "Unregister one region, or all",
    "cuda_shm_status": "Registered regions of CUDA shared memory",
    "cuda_shm_register": "Register a region of CUDA shared memory",
    "cuda_shm_unregister": "Unregister one region, or all",
    "rollouts": "List the roll-outs, or begin one",
    "rollout": "A roll-out with its numbers",
    "rollout_action": "Pause, resume, abort, promote or roll back",
    "history": "The journal of decisions",
    "model_rollback": "Let an earlier version answer",
    "feedback": "A client's opinion of an answer, from 0 to 1",
    "model_labels": "The labels of a model",
    "model_label": "Point a label at a loaded version, or remove it",
    "predict": "Run the model as TensorFlow Serving and KServe V1 do, on rows or columns of JSON",
    "predict_models": "The models that answer, as KServe V1 lists them",
    "predict_status": "States of a model's versions, as TensorFlow Serving and KServe V1 tell them",
    "classify": "Says to use predict instead: models here read no tf.Example",
    "regress": "Says to use predict instead: models here read no tf.Example",
    "predict_metadata": "Inputs and outputs of a model as a signature of TensorFlow",
    "openapi": "This document",
}

_PARAMETERS: Final = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_TENSOR: Final = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": sorted(NUMPY)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "parameters": _PARAMETERS,
        "data": {"type": "array"},
    },
}
_SCHEMAS: Final[dict[str, Any]] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "Tensor": _TENSOR,
    "RequestedOutput": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
    },
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": _PARAMETERS,
            "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
            "outputs": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/RequestedOutput"},
            },
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "parameters": _PARAMETERS,
            "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
        },
    },
    "Object": {"type": "object"},
    "PredictRequest": {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string"},
            "instances": {"type": "array"},
            "inputs": {},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
}

# operation -> (request schema or "", response media type, response schema or "")
_EMPTY: Final = ("Object", "", "")
_BODIES: Final = {
    "infer": ("InferRequest", "application/json", "InferResponse"),
    "generate": ("Object", "application/json", "Object"),
    "predict": ("PredictRequest", "application/json", "Object"),
    "generate_stream": ("Object", "text/event-stream", ""),
    "server_live": ("", "", ""),
    "server_ready": ("", "", ""),
    "model_ready": ("", "", ""),
    "repository_load": _EMPTY,
    "repository_unload": _EMPTY,
    "system_shm_register": _EMPTY,
    "system_shm_unregister": _EMPTY,
    "cuda_shm_register": _EMPTY,
    "cuda_shm_unregister": _EMPTY,
}
# Of these nothing is left to say when the body is missing.
_NEED_BODY: Final = frozenset(("infer", "generate", "generate_stream", "predict"))


@cache
def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1 of every route."""
    paths: dict[str, dict[str, Any]] = {}
    for methods, pattern, operation in ROUTES:
        for path in expand(pattern):
            for method in methods.split():
                entry = paths.setdefault(path, {})
                entry[method.lower()] = _operation(operation, path, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tuili inference server",
            "version": "2",
            "description": "The KServe v2 protocol with Triton's extensions.",
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _operation(operation: str, path: str, method: str) -> dict[str, Any]:
    names = _NAMES.findall(path)
    request, media, response = _BODIES.get(operation, ("Object", "application/json", ""))
    described: dict[str, Any] = {
        "operationId": "_".join([method.lower(), operation, *names]),
        "summary": _SUMMARY[operation],
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {
                    "type": "string",
                    **({"pattern": "^[0-9]+$"} if name == "version" else {}),
                },
            }
            for name in names
        ],
        "responses": {
            "200": {"description": "OK", **_content(media, response)},
            "default": {"description": "An error", **_content("application/json", "Error")},
        },
    }
    if method == "POST" and request:
        described["requestBody"] = {
            "required": operation in _NEED_BODY,
            **_content("application/json", request),
        }
    return described


def _content(media: str, schema: str) -> dict[str, Any]:
    if not media:
        return {}
    described = {"schema": {"$ref": f"#/components/schemas/{schema}"}} if schema else {}
    return {"content": {media: described}}
