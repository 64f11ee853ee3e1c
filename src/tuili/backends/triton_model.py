"""A model written for Triton's Python back end: its life, and the requests of a batch."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import threading
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuili.backends import BackendOptions, Specs, triton_utils
from tuili.backends.host_letters import text_of
from tuili.backends.readiness import readiness_of
from tuili.backends.requests import KINDS, Answered, SendTo, Told, divided
from tuili.backends.triton_calls import InferenceRequest
from tuili.backends.triton_completion import ModelConfig
from tuili.backends.triton_tensors import Forward, InferenceResponse, Kept, Tensor, TritonError
from tuili.errors import InternalError, InvalidModel, TuiliError
from tuili.tensors import Array

_log = logging.getLogger("tuili.backends")

_RESCHEDULE: int = triton_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE


@dataclass(frozen=True, slots=True)
class _Later:
    """An answer that the model gives by itself, and its outputs that are wanted."""

    kept: Kept
    wanted: Sequence[str]


class TritonModel:
    """A `TritonPythonModel`, initialized."""

    def __init__(self, model_class: Any, path: Path, options: BackendOptions) -> None:
        self.inputs: Specs = options.declared_inputs
        self.outputs: Specs = options.declared_outputs
        self._model_name = path.parent.parent.name
        self._name = f"{self._model_name}_0_{options.instance}"
        self._batched = options.max_batch_size > 0
        self._decoupled = options.decoupled
        self._iterative = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_begins = threading.Lock()
        self.config_json = ""
        config = options.config_json or json.dumps({"name": self._model_name})
        if hasattr(model_class, "auto_complete_config"):
            self._complete(model_class, config)
        found = json.loads(self.config_json or config)
        sequences = found.get("sequence_batching", {})
        self._iterative = bool(sequences.get("iterative_sequence", False))
        self._model = model_class()
        triton_utils.set_model_dir(str(path.parent))
        if hasattr(self._model, "initialize"):
            self._model.initialize(self._arguments(path, self.config_json or config))
        self.why_not_ready = readiness_of(self._model, self._wait)
        self.has_end = hasattr(self._model, "finalize")

    def _complete(self, model_class: Any, config: str) -> None:
        completing = ModelConfig(config)
        completed = model_class.auto_complete_config(completing)
        if not isinstance(completed, ModelConfig):
            raise InvalidModel(
                "auto_complete_config function in model "
                f"'{completing.as_dict()['name']}' must return a valid pb.ModelConfig object."
            )
        found = completed.as_dict()
        if found != json.loads(config):
            self.config_json = json.dumps(found)
        self._batched = found.get("max_batch_size", 0) > 0
        self._decoupled = triton_utils.using_decoupled_model_transaction_policy(found)

    def _arguments(self, path: Path, config: str) -> dict[str, str]:
        """What Triton hands to `initialize`."""
        return {
            "model_config": config,
            "model_instance_kind": "CPU",
            "model_instance_name": self._name,
            "model_instance_device_id": "0",
            "model_repository": str(path.parent.parent),
            "model_version": path.parent.name,
            "model_name": path.parent.parent.name,
        }

    # ---- runs
    def run(self, inputs: dict[str, Array], /) -> Mapping[str, Array]:
        """A run without a client, for warm-up."""
        rows = len(next(iter(inputs.values()))) if self._batched and inputs else 1
        answer = self.run_requests(inputs, [Told(rows)], lambda at: False)[0]
        if answer.error is not None:
            raise answer.error
        return answer.outputs

    def run_requests(
        self, inputs: dict[str, Array], told: Sequence[Told], cancelled: Callable[[int], bool]
    ) -> list[Answered]:
        """One `execute` for the whole batch; once more for requests that ask for it."""
        # Once these are here only the model holds the requests: a sender that it lets go of ends
        # its request.
        answers = self._rounds(self._requests(inputs, told, cancelled))
        return [
            self._waited(answer) if isinstance(answer, _Later) else answer for answer in answers
        ]

    def _rounds(self, requests: list[InferenceRequest]) -> list[Answered | _Later]:
        answers: list[Answered | _Later | None] = [None] * len(requests)
        waiting = list(range(len(requests)))
        while waiting:
            batch = [requests[at] for at in waiting]
            for at, response in zip(waiting, self._execute(batch), strict=True):
                answers[at] = self._answer(requests[at], response)
            waiting = [at for at in waiting if answers[at] is None]
        return [answer for answer in answers if answer is not None]

    def begin_streams(
        self,
        inputs: dict[str, Array],
        told: Sequence[Told],
        cancelled: Callable[[int], bool],
        send: SendTo,
    ) -> None:
        """One `execute`; what the model sends through a request's sender goes on at once."""
        requests = self._requests(inputs, told, cancelled)
        for at, request in enumerate(requests):
            request.forward = _forward(at, told[at].outputs, send)
        waiting = requests
        while waiting:
            for request, response in zip(waiting, self._execute(waiting), strict=True):
                if response is not None and request.forward is not None:
                    request.forward(response, False)
            waiting = [each for each in waiting if each.release_flags == _RESCHEDULE]
        for at, request in enumerate(requests):
            if request.sender is None and not request.in_background:
                send(at, None, True)

    def _in_background(
        self, execution: Coroutine[Any, Any, Any], batch: list[InferenceRequest]
    ) -> list[InferenceResponse | None]:
        """Let a coroutine answer while the next requests are taken, as Triton does."""

        def ended(future: Future[Any]) -> None:
            error = CancelledError() if future.cancelled() else future.exception()
            for request in batch:
                if error is not None and request.forward is not None:
                    text = self._failed(f"{type(error).__name__}: {error}", error)
                    _log.error("%s", text)
                    request.forward(InferenceResponse(error=TritonError(text)), True)
                elif request.sender is None and request.forward is not None:
                    request.forward(None, True)

        for request in batch:
            request.in_background = True
        asyncio.run_coroutine_threadsafe(execution, self._tasks()).add_done_callback(ended)
        return [None] * len(batch)

    def _tasks(self) -> asyncio.AbstractEventLoop:
        """The loop of the model's coroutines, on a thread of its own."""
        with self._loop_begins:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = partial(_run_for_ever, self._loop)
                threading.Thread(target=run, name="execute", daemon=True).start()
            return self._loop

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine on a loop that stays: tasks that it leaves behind go on."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._tasks()).result()

    def close(self) -> None:
        """Tell the model that it ends."""
        finalize = getattr(self._model, "finalize", None)
        if finalize is not None:
            finalize()

    # ---- steps
    def _requests(
        self, inputs: dict[str, Array], told: Sequence[Told], cancelled: Callable[[int], bool]
    ) -> list[InferenceRequest]:
        names = [spec.name for spec in self.outputs]
        requests: list[InferenceRequest] = []
        for at, (each, mine) in enumerate(zip(told, divided(inputs, told), strict=True)):
            requests.append(
                InferenceRequest(
                    each.id,
                    each.sequence,
                    [Tensor(name, array) for name, array in mine.items()],
                    each.outputs or names,
                    self._model_name,
                    flags=each.flags,
                    timeout=each.timeout_us,
                    received=each.parameters,
                    cancelled=lambda at=at: cancelled(at),
                )
            )
        return requests

    def _execute(self, batch: list[InferenceRequest]) -> list[InferenceResponse | None]:
        """The model's responses, one a request, checked; None where it answers by its sender."""
        for request in batch:
            request.release_flags = triton_utils.TRITONSERVER_REQUEST_RELEASE_ALL
        responses = self._checked(batch)
        for request in batch:
            if request.release_flags == _RESCHEDULE:
                self._again(request)
        return responses

    def _again(self, request: InferenceRequest) -> None:
        """A request that is to be executed once more is in the middle of its sequence."""
        if not self._iterative:
            raise InternalError(
                "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the model "
                "is not configured to handle such a flag"
            )
        request.set_flags(0)

    def _checked(self, batch: list[InferenceRequest]) -> list[InferenceResponse | None]:
        try:
            responses = self._model.execute(batch)
            if inspect.iscoroutine(responses):
                if self._decoupled and batch[0].forward is not None:
                    return self._in_background(responses, batch)
                responses = self._wait(responses)
        except TuiliError as error:
            raise InternalError(self._failed(str(error), error)) from error
        except BaseException as error:
            text = f"{type(error).__name__}: {text_of(error)}"
            raise InternalError(self._failed(text, error)) from error
        if self._decoupled:
            if responses is not None:
                raise InternalError(
                    f"Python model '{self._name}' is using the decoupled mode and the execute "
                    "function must return None."
                )
            return [None] * len(batch)
        if not isinstance(responses, list):
            if responses is None and all(request.sender is not None for request in batch):
                return [None] * len(batch)
            kind = type(responses).__name__  # pyright: ignore[reportUnknownArgumentType]
            raise InternalError(
                self._failed(f"Expected a list in the execute return, found type '{kind}'.")
            )
        if len(responses) != len(batch):
            raise InternalError(
                self._failed(
                    "Number of InferenceResponse objects do not match the number of "
                    f"InferenceRequest objects. InferenceRequest(s) size is:{len(batch)}, and "
                    f"InferenceResponse(s) size is:{len(responses)}\n"
                )
            )
        for request, response in zip(batch, responses, strict=True):
            self._check_response(request, response)
        return responses

    def _check_response(self, request: InferenceRequest, response: object) -> None:
        found = f"found type '{type(response).__name__}'."
        again = request.release_flags == _RESCHEDULE
        if again and response is not None:
            text = (
                "Expected a None object in the execute function return list for reschduled request"
            )
            raise InternalError(self._failed(f"{text}, {found}"))
        released = again or request.sender is not None
        if not isinstance(response, InferenceResponse) and not (response is None and released):
            text = "Expected an 'InferenceResponse' object in the execute function return list, "
            raise InternalError(self._failed(text + found))

    def _answer(
        self, request: InferenceRequest, response: InferenceResponse | None
    ) -> Answered | _Later | None:
        """The one answer to a request; None when it is to be executed once more."""
        wanted = request.requested_output_names()
        sender = request.sender
        if response is not None:
            before = None if sender is None else sender.kept.first()
            return _answered(before or response, wanted)
        if request.release_flags == _RESCHEDULE:
            return None
        assert sender is not None
        return _Later(sender.kept, wanted)

    def _waited(self, later: _Later) -> Answered:
        """The answer of a request whose model answers by its sender."""
        sent = list(later.kept.all())
        if not sent:
            text = "Non-decoupled model cannot send complete final before sending a response"
            return Answered(error=InternalError(self._failed(text)))
        # As in Triton the first one is the answer, whatever comes after it.
        return _answered(sent[0], later.wanted)

    def _failed(self, text: str, error: BaseException | None = None) -> str:
        where = ""
        if error is not None:
            frames = reversed(traceback.extract_tb(error.__traceback__)[1:])
            lines = "".join(f"  {each.filename}({each.lineno}): {each.name}\n" for each in frames)
            where = f"\n\nAt:\n{lines}"
        return f"Failed to process the request(s) for model '{self._name}', message: {text}{where}"


def _forward(at: int, wanted: Sequence[str], send: SendTo) -> Forward:
    def forward(response: InferenceResponse | None, final: bool) -> None:
        send(at, None if response is None else _answered(response, wanted), final)

    return forward


def _answered(response: InferenceResponse, wanted: Sequence[str]) -> Answered:
    error = response.error()
    if error is not None:
        return Answered(error=KINDS[error.kind](error.message()), parameters=response.told)
    names = set(wanted)
    outputs = {
        tensor.name(): tensor.as_numpy()
        for tensor in response.output_tensors()
        if not names or tensor.name() in names
    }
    return Answered(outputs, response.told)


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop that goes on where a task lets SystemExit or KeyboardInterrupt out of it."""
    while True:
        with contextlib.suppress(SystemExit, KeyboardInterrupt):  # which the task has, too
            loop.run_forever()
