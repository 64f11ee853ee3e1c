"""Triton's tests of models in Python, with their models."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conformance.triton.suites.building import (
    Build,
    all_of,
    changed,
    code,
    extended,
    made,
    python,
    stored,
)
from tests.conformance.triton.suites.suite import Suite
from tests.conformance.triton.suites.table_ensembles import square

_HOME = "L0_backend_python"
_TORCH = "needs PyTorch"
_GPU = "needs a GPU"
_MANY = "model_transaction_policy { decoupled: True }\n"
_LATE = "dynamic_batching { max_queue_delay_microseconds: 500000 }\n"


def _named(source: str, name: str, more: str = "", code: str = "model.py") -> Build:
    """A model of `qa/python_models` under another name, with another of its files as its code."""

    def build(repository: Path, qa: Path) -> None:
        python(source)(repository / ".made", qa)
        shutil.move(repository / ".made" / source, repository / name)
        (repository / ".made").rmdir()
        version = repository / name / "1"
        if code != "model.py":
            shutil.copy(version / code, version / "model.py")

    return all_of(
        build, changed(name, f'^name: *"{source}"', f'name: "{name}"'), extended(name, "\n" + more)
    )


def _of(kind: str, name: str, *, rows: str = "") -> Build:
    """An identity of another type."""
    steps = [_named("identity_fp32", name), changed(name, "TYPE_FP32", kind)]
    if rows:
        steps.append(changed(name, "^max_batch_size:.*", rows))
    return all_of(*steps)


_SENDERS = all_of(
    *(
        _named("response_sender", f"response_sender{name}", more, code)
        for name, more, code in (
            ("", "", "model.py"),
            ("_decoupled", _MANY, "model.py"),
            ("_async", "", "model_async.py"),
            ("_decoupled_async", _MANY, "model_async.py"),
            ("_batching", _LATE, "model.py"),
            ("_decoupled_batching", _MANY + _LATE, "model.py"),
            ("_async_batching", _LATE, "model_async.py"),
            ("_decoupled_async_batching", _MANY + _LATE, "model_async.py"),
        )
    )
)
_WAITS = "dynamic_batching { preferred_batch_size: [8], max_queue_delay_microseconds: 12000000 }\n"
_LIVES = all_of(
    python("error_code", "execute_cancel", "execute_return_error", "decoupled_grpc_error", "execute_error", "execute_grpc_error"),
    *(all_of(changed(name, "^max_batch_size:.*", "max_batch_size: 8"), extended(name, _WAITS)) for name in ("execute_error", "execute_grpc_error")),
    python("wrong_model"), changed("wrong_model", "^name:.*", 'name: "wrong_model"'), changed("wrong_model", "TYPE_FP32", "TYPE_UINT32"),
)  # fmt: skip
_STREAMS = (
    *("decoupled_bls_async_cancel", "decoupled_bls_cancel", "decoupled_bls_cancel_after_complete", "decoupled_bls_stream"),
    *("decoupled_execute_error", "decoupled_raise_exception", "decoupled_return_response_error", "decoupled_send_after_close_error"),
)  # fmt: skip
_DECOUPLED_MODELS = all_of(
    stored(f"{_HOME}/decoupled/models", *_STREAMS), python("identity_fp32", "execute_cancel", "response_sender_until_cancelled"),
    square("square_int32"),
)  # fmt: skip
_IO = f"{_HOME}/io/io_test.py"


def _io_models(source: str) -> Build:
    return all_of(
        *(_named(source, f"dlpack_io_identity_{at}") for at in (1, 2, 3)), python("ensemble_io")
    )


def _laid_out(folder: str, name: str, to: str = "") -> Build:
    """A Python model that lies in a test's folder without one for its version."""

    def build(repository: Path, qa: Path) -> None:
        there = repository / (to or name)
        shutil.copytree(qa / folder / name, there)
        (there / "1").mkdir()
        shutil.move(there / "model.py", there / "1")

    return build


_BASICS = all_of(
    python("identity_fp32", "optional", "non_contiguous", "string", "string_fixed", "delayed_model"),
    _of("TYPE_UINT8", "identity_uint8", rows="max_batch_size: 8\ndynamic_batching { preferred_batch_size: [8], max_queue_delay_microseconds: 12000000 }"),
    _of("TYPE_UINT8", "identity_uint8_nobatch", rows=""), _of("TYPE_UINT32", "identity_uint32"), _of("TYPE_BOOL", "identity_bool"),
)  # fmt: skip


_MONITOR = """
class SharedMemoryManager:
    def __init__(self, region):
        pass

    def free_memory(self):
        return 0
"""


def _no_monitor(folder: Path, qa: Path) -> None:
    """Triton's back end keeps a region of shared memory that its tests watch; here there is none."""
    (folder / "triton_shm_monitor.py").write_text(_MONITOR)


def _log_as(name: str) -> Build:
    """As `_no_monitor`, with the server's log beside the test too."""

    def build(folder: Path, qa: Path) -> None:
        _no_monitor(folder, qa)
        (folder / name).symlink_to(folder.parent / "server.log")

    return build


# A test that asks a model to run a test of its own, by pytest in Triton.
_INSIDE = f"{_HOME}/test_infer_shm_leak.py"


def _inside(name: str, model: str, build: Build, *arguments: str, limit_s: int = 120) -> Suite:
    return Suite(
        f"python: {name}", _INSIDE, build, arguments, environment={"MODEL_NAME": model}, beside=_no_monitor,
        replaced=(("class TestInferShmLeak:", "class TestInferShmLeak(unittest.TestCase):"),), timeout_s=limit_s, issue=6,
    )  # fmt: skip


_METRICS = all_of(
    python("custom_metrics"),
    code("custom_metrics", "import unittest\n", "import os\nimport unittest\n"),
    code("custom_metrics", '"http://localhost:8002/metrics"', "f\"http://localhost:{os.environ['METRICS_PORT']}/metrics\""),
)  # fmt: skip
_LOADING = all_of(
    python("bls_model_loading"), made("qa_model_repository", "onnx_int32_int32_int32"),
    lambda repository, qa: shutil.rmtree(repository / "onnx_int32_int32_int32" / "1"),
    code("bls_model_loading", '"models/', '"{repository}/'),
)  # fmt: skip

_READY = f"{_HOME}/model_readiness"


def _says(name: str, value: str, delay_s: str = "0.1", code: str = "readiness_model.py") -> Build:
    """An identity that says of itself whether it is ready."""

    def build(repository: Path, qa: Path) -> None:
        shutil.copy(qa / _READY / "test_models" / code, repository / name / "1" / "model.py")

    told = (("RETURN_VALUE", value), ("DELAY_SECS", delay_s))
    more = "".join(
        f'parameters {{ key: "READINESS_FN_{key}" value {{ string_value: "{each}" }} }}\n'
        for key, each in told
    )
    return all_of(_named("identity_fp32", name, more), build)


_READIES = all_of(
    python("identity_fp32"), _says("is_ready_fn_returns_true", "true"), _says("is_ready_fn_returns_false", "false"),
    _says("is_ready_fn_raises_error", "exception"), _says("is_ready_fn_returns_non_boolean", "non_boolean"), _says("is_ready_fn_timeout", "true", "8"),
    _says("is_ready_fn_coroutine_returns_true", "coroutine", code="readiness_coroutine_model.py"),
    _laid_out(f"{_READY}/test_models", "is_ready_fn_returns_true_decoupled"),
)  # fmt: skip

_AGAIN = python(
    "bls_request_rescheduling",
    "request_rescheduling_addsub",
    "iterative_sequence",
    "wrong_return_type",
)
_ALL = ("--model-control-mode", "explicit", "--load-model", "*")

PYTHON = (
    _inside("arguments", "argument_validation", stored(f"{_HOME}/argument_validation/models")),
    _inside("custom metrics", "custom_metrics", _METRICS),
    _inside("loading from a model", "bls_model_loading", _LOADING, "--model-control-mode", "explicit", "--load-model", "bls_model_loading", limit_s=300),
    Suite("python: logging", f"{_HOME}/logging/logging_test.py", python("identity_fp32_logging"), beside=_no_monitor, issue=6),
    Suite("python: model control", f"{_HOME}/model_control/model_control_test.py", python("identity_fp32", "simple_identity_fp32"),
          ("--model-control-mode", "explicit"), beside=_no_monitor, issue=6),
    Suite("python: restart", f"{_HOME}/restart/restart_test.py", stored(f"{_HOME}/restart/models"), beside=_no_monitor, issue=6,
          skips={"*test_restart": "asks for an error after its host was killed: here the request is tried once more", "*": "its model looks at Triton's own shared region"}),
    Suite("python: basics", f"{_HOME}/python_test.py", _BASICS, ("--allow-client-shm",), beside=_no_monitor, issue=6,
          skips={"*growth_error": "measures the memory of Triton's own shared region", "*gpu*": _GPU, "*dlpack*": _TORCH, "*pytorch": _TORCH, "*bf16": _TORCH,
                 "*init_args": "asks for the folder of Triton's own installation"}),
    Suite("python: decoupled", f"{_HOME}/decoupled/decoupled_test.py", all_of(_DECOUPLED_MODELS), own_server=True, beside=_log_as("decoupled_server.log"), issue=6,
          skips={"*decoupled_bls": _TORCH}),
    Suite("python: coroutines", f"{_HOME}/async_execute/concurrency_test.py", python("async_execute_decouple", "async_execute_decouple_bls"), beside=_no_monitor, issue=6),
    Suite("python: ensemble", f"{_HOME}/ensemble/ensemble_test.py",
          all_of(python("ensemble"), _named("add_sub", "add_sub_1"), _named("add_sub", "add_sub_2")), skips={"*gpu": _GPU}, beside=_no_monitor, issue=6),
    Suite("python: bls parameters", f"{_HOME}/bls/bls_parameters_test.py", python("bls_parameters"), beside=_no_monitor, issue=6),
    Suite("python: parameters", f"{_HOME}/parameters/response_parameters_test.py",
          python("response_parameters", "response_parameters_decoupled", "response_parameters_bls"), beside=_no_monitor, issue=6),
    Suite("python: response sender", f"{_HOME}/response_sender/response_sender_test.py", _SENDERS, beside=_no_monitor, issue=6),
    Suite("python: response sender closed", f"{_HOME}/response_sender/response_sender_complete_final_test.py", python("response_sender_complete_final"), beside=_no_monitor, issue=6),
    Suite("python: lifecycle", f"{_HOME}/lifecycle/lifecycle_test.py", _LIVES, beside=_log_as("lifecycle_server.log"), issue=6),
    Suite("python: reschedule", f"{_HOME}/request_rescheduling/grpc_endpoint_test.py", _AGAIN, _ALL, beside=_no_monitor, issue=6),
    Suite("python: readiness", f"{_READY}/test_model_readiness.py", _READIES, ("--no-strict-readiness",), skips={"*model_not_ready": "asks after its host was killed: here it is there again"}, issue=6),
    _inside("rescheduling of a model's calls", "bls_request_rescheduling", _AGAIN, *_ALL),
    Suite("python: ensemble of streams", _IO, _io_models("dlpack_io_identity"), only=("*ensemble_io",), environment={"TRIAL": "default"}, skips={"*": _TORCH}, beside=_no_monitor, issue=6),
    Suite("python: outputs", _IO, python("add_sub"), only=("*output_default",), beside=_no_monitor, issue=6),
    Suite("python: outputs", _IO, python("add_sub"), only=("*gpu*", "*output_decoupled"), skips={"*gpu*": _GPU, "*": _TORCH}, beside=_no_monitor, issue=6),
    Suite("python: outputs", _IO, _laid_out(f"{_HOME}/io", "requested_output_model", "llm"), only=("*prior_crash",), beside=_no_monitor, issue=6),
)  # fmt: skip
