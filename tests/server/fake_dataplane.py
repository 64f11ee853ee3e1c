"""A data plane in memory, for transports to be tested against without models or schedulers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuili.errors import InternalError, InvalidArgument, NotFound, Overloaded, Unsupported
from tuili.server.dataplane import DataPlane, Json, Reply, StreamReply
from tuili.server.protocol.messages import (
    InferRequest,
    InferResponse,
    OutputTensor,
    Parameters,
)
from tuili.server.readiness import Verdict
from tuili.server.steps import Steps

DATATYPES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
SHM_DISABLED = (
    "the server does not allow clients to register shared memory; start it with --allow-client-shm"
)


@dataclass
class FakeTicket:
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


def tensor(name: str, datatype: str, shape: list[int]) -> Json:
    return {"name": name, "datatype": datatype, "shape": shape}


class FakeDataPlane(DataPlane):
    """`identity` echoes, `simple` adds, `repeat` answers IN[0] times, `held` waits."""

    def __init__(self) -> None:
        self.requests: list[InferRequest] = []
        self.held: list[tuple[FakeTicket, InferRequest, Reply]] = []
        self.holding = asyncio.Event()
        self.loaded: list[tuple[str, Parameters | None]] = []
        self.unloaded: list[tuple[str, bool]] = []
        self.regions: dict[str, Json] = {}
        self.ready = True
        self.keep_requests = True
        self.trace: Json = {
            "trace_file": "", "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1",
            "log_frequency": "0", "trace_mode": "triton",
        }  # fmt: skip
        self.log: Json = {
            "log_file": "", "log_info": True, "log_warning": True, "log_error": True,
            "log_verbose_level": 0, "log_format": "default",
        }  # fmt: skip

    # ---- inference

    def submit(self, request: InferRequest, reply: Reply) -> FakeTicket:
        ticket = FakeTicket()
        if self.keep_requests:
            self.requests.append(request)
        match request.model:
            case "identity":
                reply(self._echo(request))
            case "later":
                asyncio.get_running_loop().call_soon(lambda: reply(self._echo(request)))
            case "simple":
                reply(self._add_sub(request))
            case "held":
                self.held.append((ticket, request, reply))
                self.holding.set()
            case "bug":
                reply(InternalError("something broke"))
            case "busy":
                reply(Overloaded("Exceeds maximum queue size", 0.25))
            case "unwritable":
                broken = OutputTensor("O", "FP32", (1,), "no array")  # type: ignore[arg-type]
                reply(InferResponse("unwritable", "1", [broken]))
            case "raises":
                raise RuntimeError("submit must not raise, but what if it did")
            case "repeat":
                reply(Unsupported("doesn't support models with decoupled transaction policy"))
            case _:
                reply(self._unknown(request.model))
        return ticket

    def express_servable(self, request: InferRequest) -> None:
        """None of its models goes the express way."""

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> FakeTicket:
        if request.model != "repeat":
            return self.submit(request, lambda answer: reply(answer, True))
        self.requests.append(request)
        data = request.inputs[0].data
        assert data is not None
        count = int(data.reshape(-1)[0])
        for index in range(count):
            out = np.array([index], np.int32)
            output = OutputTensor("OUT", "INT32", (1,), out)
            reply(InferResponse("repeat", "1", [output], request.id), index == count - 1)
        if count == 0:
            reply(None, True)
        return FakeTicket()

    def release(self) -> None:
        """Answer every held request."""
        for ticket, request, reply in self.held:
            if not ticket.cancelled:
                reply(self._echo(request))
        self.held.clear()
        self.holding.clear()

    def _echo(self, request: InferRequest) -> InferResponse:
        wanted = [output.name for output in request.outputs or []]
        outputs = [
            OutputTensor(item.name.replace("INPUT", "OUTPUT"), item.datatype, item.shape, item.data)
            for item in request.inputs
        ]
        if wanted:
            outputs = [item for name in wanted for item in outputs if item.name == name]
        return InferResponse(
            request.model, request.version or "1", outputs, request.id, request.parameters
        )

    def _add_sub(self, request: InferRequest) -> InferResponse | InvalidArgument:
        arrays = {item.name: item.data for item in request.inputs}
        if set(arrays) != {"INPUT0", "INPUT1"}:
            return InvalidArgument(
                f"expected 2 inputs but got {len(arrays)} inputs for model 'simple'."
            )
        left, right = arrays["INPUT0"], arrays["INPUT1"]
        assert left is not None
        assert right is not None
        outputs = [
            OutputTensor("OUTPUT0", "INT32", left.shape, left + right),
            OutputTensor("OUTPUT1", "INT32", left.shape, left - right),
        ]
        wanted = [output.name for output in request.outputs or []]
        if wanted:
            outputs = [item for name in wanted for item in outputs if item.name == name]
        return InferResponse("simple", request.version or "1", outputs, request.id)

    def _unknown(self, model: str) -> NotFound:
        return NotFound(f"Request for unknown model: '{model}' is not found")

    # ---- health and metadata

    def server_live(self) -> bool:
        return True

    def server_ready(self) -> bool:
        return self.ready

    def not_ready_reasons(self) -> dict[str, str]:
        return {} if self.ready else {"": "models are still loading", "simple": "no file"}

    def server_verdict(self) -> Verdict:
        reasons = sorted(self.not_ready_reasons().items())
        told = [f"model '{model}': {why}" if model else why for model, why in reasons]
        return Verdict(self.ready, "; ".join(told))

    def model_verdict(self, model: str, version: str = "") -> Verdict:
        return Verdict(self.model_ready(model, version), self.not_ready_reasons().get(model, ""))

    def server_metadata(self) -> Json:
        return {"name": "tuili", "version": "0.1", "extensions": ["binary_tensor_data"]}

    def model_ready(self, model: str, version: str = "") -> bool:
        if version and not version.isdigit():
            raise InvalidArgument(
                f"failed to get model version from specified version string '{version}'"
            )
        return self.ready and model in ("identity", "simple", "repeat", "held")

    def model_metadata(self, model: str, version: str = "") -> Json:
        if model == "simple":
            inputs = [tensor("INPUT0", "INT32", [-1, 16]), tensor("INPUT1", "INT32", [-1, 16])]
            outputs = [tensor("OUTPUT0", "INT32", [-1, 16]), tensor("OUTPUT1", "INT32", [-1, 16])]
        elif model == "identity":
            inputs = [tensor("INPUT", "FP32", [-1, 16])]
            outputs = [tensor("OUTPUT", "FP32", [-1, 16])]
        elif model == "repeat":
            inputs, outputs = [tensor("IN", "INT32", [1])], [tensor("OUT", "INT32", [1])]
        else:
            raise self._unknown(model)
        return {
            "name": model, "versions": ["1"], "platform": "tuili",
            "inputs": inputs, "outputs": outputs,
        }  # fmt: skip

    def model_config(self, model: str, version: str = "") -> Json:
        metadata = self.model_metadata(model, version)
        return {
            "name": model,
            "platform": "tuili",
            "max_batch_size": 0 if model == "repeat" else 8,
            "input": [
                {"name": item["name"], "data_type": "TYPE_" + item["datatype"], "dims": ["16"]}
                for item in metadata["inputs"]
            ],
            "dynamic_batching": {"preferred_batch_size": [4, 8]},
            "parameters": {"key": {"string_value": "value"}},
        }

    def each_statistics(self, model: str = "", version: str = "") -> Iterator[Json]:
        return iter(self.model_statistics(model, version)["model_stats"])

    def model_statistics(self, model: str = "", version: str = "") -> Json:
        if model not in ("", "identity", "simple"):
            raise InvalidArgument(f"requested model '{model}' is not available")
        stat = {"count": 3, "ns": 4500}
        return {
            "model_stats": [
                {
                    "name": model or "identity", "version": "1", "last_inference": 17,
                    "inference_count": 3, "execution_count": 2,
                    "inference_stats": {"success": stat, "fail": {"count": 0, "ns": 0}},
                    "batch_stats": [{"batch_size": 1, "compute_infer": stat}],
                }
            ]
        }  # fmt: skip

    def is_decoupled(self, model: str, version: str = "") -> bool:
        return model == "repeat"

    # ---- repository

    def repository_index(self, ready_only: bool = False) -> list[Json]:
        index = [{"name": "identity", "version": "1", "state": "READY", "reason": ""}]
        return index if ready_only else [*index, {"name": "other"}]

    async def repository_load(self, model: str, parameters: Parameters | None = None) -> None:
        await asyncio.get_running_loop().run_in_executor(None, json.dumps, {})
        if model == "missing":
            raise InternalError("failed to load 'missing', failed to poll from model repository")
        self.loaded.append((model, parameters))

    async def repository_unload(self, model: str, unload_dependents: bool = False) -> None:
        self.unloaded.append((model, unload_dependents))

    # ---- settings

    def trace_settings(self, model: str = "") -> Json:
        return self.trace

    def update_trace_settings(self, settings: Json, model: str = "") -> Json:
        self.trace.update({key: value for key, value in settings.items() if value is not None})
        return self.trace

    def log_settings(self) -> Json:
        return self.log

    def update_log_settings(self, settings: Json) -> Json:
        if "log_file" in settings:
            raise Unsupported("log file location can not be updated through network protocol")
        self.log.update(settings)
        return self.log

    # ---- shared memory

    def shared_memory_status(self, kind: Literal["system", "cuda"], region: str = "") -> list[Json]:
        if kind == "cuda":
            raise Unsupported("CUDA shared memory is not supported")
        if region and region not in self.regions:
            raise NotFound(f"Unable to find system shared memory region: '{region}'")
        return [self.regions[region]] if region else list(self.regions.values())

    def shared_memory_register(
        self, kind: Literal["system", "cuda"], region: str, parameters: Json
    ) -> None:
        if kind == "cuda":
            raise Unsupported("CUDA shared memory is not supported")
        self.regions[region] = {"name": region, **parameters}

    def shared_memory_unregister(self, kind: Literal["system", "cuda"], region: str = "") -> None:
        if kind == "cuda":
            raise Unsupported("CUDA shared memory is not supported")
        if region:
            self.regions.pop(region, None)
        else:
            self.regions.clear()

    # ---- telemetry

    def write_metrics(self) -> Steps[list[bytes]]:
        yield
        return [self.metrics_text().encode()]

    def metrics_text(self) -> str:
        return "# TYPE nv_inference_count counter\nnv_inference_count 3\n"
