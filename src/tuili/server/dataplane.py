"""The one object that transports talk to: requests in, answers out, and everything about models.

Everything here is called on the event loop. Requests are callback style (no coroutine, no task
per request): `submit` queues, the batcher answers later. What is not inference returns plain
JSON-shaped dictionaries with the field names of the protocol, so that HTTP dumps them and gRPC
fills its messages from them (`google.protobuf.json_format.ParseDict`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from tuili.errors import TuiliError
from tuili.server.protocol.messages import InferRequest, InferResponse, Parameters

Json = dict[str, Any]
Reply = Callable[[InferResponse | TuiliError], None]
StreamReply = Callable[[InferResponse | TuiliError | None, bool], None]


class Ticket(Protocol):
    """A request in progress."""

    def cancel(self) -> None:
        """Forget the request: it leaves the queue, and `reply` is not called any more."""


class DataPlane:
    """Inference, health, metadata, repository, statistics and settings of one server."""

    # ---- inference
    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """Queue a request; `reply` is called once, on the loop, with its response or error.

        `reply` may be called before `submit` returns (a refused request). It must not raise.
        """
        raise NotImplementedError

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As `submit` for models that answer 0..n times: `reply(answer, final)`.

        Models that answer once call it once with `final` true. A final call without an answer
        has None. An error is always final.
        """
        raise NotImplementedError

    # ---- health and metadata
    def server_live(self) -> bool:
        """Whether the process works at all."""
        raise NotImplementedError

    def server_ready(self) -> bool:
        """Whether requests should be sent here: started, not draining, every wanted model ready."""
        raise NotImplementedError

    def server_metadata(self) -> Json:
        """`{"name", "version", "extensions"}`."""
        raise NotImplementedError

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether that model version answers; false for unknown ones. InvalidArgument: bad version text."""
        raise NotImplementedError

    def model_metadata(self, model: str, version: str = "") -> Json:
        """`{"name", "versions", "platform", "inputs": [{"name", "datatype", "shape"}], "outputs"}`."""
        raise NotImplementedError

    def model_config(self, model: str, version: str = "") -> Json:
        """The model's configuration as the JSON form of Triton's `ModelConfig`."""
        raise NotImplementedError

    def model_statistics(self, model: str = "", version: str = "") -> Json:
        """`{"model_stats": [...]}` of one model, one version or ("") all."""
        raise NotImplementedError

    def is_decoupled(self, model: str, version: str = "") -> bool:
        """Whether the model may answer a request any number of times."""
        raise NotImplementedError

    # ---- repository
    def repository_index(self, ready_only: bool = False) -> list[Json]:
        """`[{"name", "version", "state", "reason"}]`; a model that is not loaded has only its name."""
        raise NotImplementedError

    async def repository_load(self, model: str, parameters: Parameters | None = None) -> None:
        """Load or reload a model; `parameters` may hold `config` (JSON text) and `file:` overrides (bytes as str/base64 decoded)."""
        raise NotImplementedError

    async def repository_unload(self, model: str, unload_dependents: bool = False) -> None:
        """Stop a model: it refuses new requests, finishes those in flight, then goes."""
        raise NotImplementedError

    # ---- settings: trace and log
    def trace_settings(self, model: str = "") -> Json:
        """The trace settings of a model or ("") the server."""
        raise NotImplementedError

    def update_trace_settings(self, settings: Json, model: str = "") -> Json:
        """Merge settings (None or empty clears a key to the global one) and return the result."""
        raise NotImplementedError

    def log_settings(self) -> Json:
        """`log_file log_info log_warning log_error log_verbose_level log_format`."""
        raise NotImplementedError

    def update_log_settings(self, settings: Json) -> Json:
        """Merge settings and return the result; `log_file` is Unsupported."""
        raise NotImplementedError

    # ---- shared memory ("cuda" is always Unsupported)
    def shared_memory_status(self, kind: Literal["system", "cuda"], region: str = "") -> list[Json]:
        """`[{"name", "key", "offset", "byte_size"}]`; NotFound for an unknown region."""
        raise NotImplementedError

    def shared_memory_register(
        self, kind: Literal["system", "cuda"], region: str, parameters: Json
    ) -> None:
        """Map a client's region: `{"key", "offset", "byte_size"}`."""
        raise NotImplementedError

    def shared_memory_unregister(self, kind: Literal["system", "cuda"], region: str = "") -> None:
        """Forget one region or ("") all; unknown ones are no error."""
        raise NotImplementedError

    # ---- telemetry
    def metrics_text(self) -> str:
        """The Prometheus exposition of everything that is counted."""
        raise NotImplementedError
