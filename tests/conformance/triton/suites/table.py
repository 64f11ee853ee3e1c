"""The test files of Triton that run against us, each with its models and with what cannot run."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.conformance.triton.suites.building import (
    all_of,
    changed,
    edited,
    examples,
    extended,
    identity,
    made,
    moved,
    on_new_numpy,
    python,
    renamed,
    stored,
)
from tests.conformance.triton.suites.suite import Suite
from tests.conformance.triton.suites.table_life import LIFE_TESTS, METRICS_TESTS
from tests.conformance.triton.suites.table_scheduling import SCHEDULING
from tuili import __version__

_GPU = "needs a GPU"
_OTHER_MODELS = "asks for models that are made for TensorRT or LibTorch only"

_HTTP_MODELS = all_of(
    made(
        "qa_identity_model_repository",
        "onnx_zero_1_float32", "onnx_zero_1_object", "onnx_zero_1_float16", "onnx_zero_3_float32",
    ),
    renamed("onnx_zero_1_object", "onnx_zero_1_object_1_element"),
    edited("onnx_zero_1_object_1_element", "dims: [ -1 ]", "dims: [ 1 ]"),
    renamed("onnx_zero_1_float32", "onnx_zero_1_float32_queue"),
    extended(
        "onnx_zero_1_float32_queue",
        "dynamic_batching { max_queue_delay_microseconds: 1000000 preferred_batch_size: [ 8 ]\n"
        "default_queue_policy { max_queue_size: 1 } }\n",
    ),
    examples("simple_identity"),
    renamed("simple_identity", "simple_identity_int64"),
    edited("simple_identity_int64", "TYPE_STRING", "TYPE_INT64"),
)  # fmt: skip

_DOCUMENTED = examples(
    *(
        "simple",
        "simple_string",
        "simple_int8",
        "simple_sequence",
        "simple_dyna_sequence",
        "simple_identity",
    )
)

SHM = "--allow-client-shm"
# Of tests that go through several back ends, the part for ONNX models runs.
_ONNX_ONLY = {"BACKENDS": "onnx", "ENSEMBLES": "0", "CPU_ONLY": "1"}
_NO_OTHERS = tuple(
    (f"def validate_for_{name}_model(", f"def validate_for_{name}_model(*_, **__):\n    return False\n\n\ndef _{name}(")
    for name in ("trt", "libtorch")
)  # fmt: skip
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")

_SHM_MODELS = all_of(
    examples("simple"), python("add_sub"), changed("add_sub", "TYPE_FP32", "TYPE_INT32"), extended("add_sub", "max_batch_size: 8\n"),
    renamed("add_sub", "python_int32_int32_int32"),
)  # fmt: skip
_SHM_SLOW = all_of(
    python("execute_delayed_model"), changed("execute_delayed_model", r'^name: "simple"', 'name: "execute_delayed_model"'),
    renamed("execute_delayed_model", "simple"),
)  # fmt: skip

_STATUS_MODELS = all_of(
    made("qa_model_repository", "onnx_int32_int8_int8", "onnx_int32_int32_int32", "onnx_float32_float32_float32", "onnx_float16_float32_float32"),
    *(renamed(f"onnx_{kinds}", f"libtorch_{kinds}") for kinds in ("int32_int8_int8", "int32_int32_int32")),
    moved("onnx_float16_float32_float32", "plan_float16_float32_float32"),
)  # fmt: skip
_STATUS_VERSION = {"TRITON_SERVER_VERSION": __version__}
_STATUS_OF_ONNX = (
    ('("plan", "onnx")', '("onnx",)'), ('("libtorch", "onnx", "plan")', '("onnx",)'),
    ('"cuda_shared_memory",', ""),  # what a build for GPUs lists
)  # fmt: skip
_POLL = ("--model-control-mode", "poll", "--poll-interval", "1")


def _change_versions(folder: Path, qa: Path) -> None:
    """What its script does to the models while the server polls, and how long it waits then."""
    models = folder / "models"
    for backend in ("libtorch", "onnx"):
        for version in ("2", "3"):
            shutil.rmtree(models / f"{backend}_int32_int32_int32" / version)
    changed_one = models / "plan_float16_float32_float32"
    shutil.copytree(changed_one / "1", changed_one / "7")
    time.sleep(
        10
    )  # Triton has 3 s; here a folder must have been still for a while, and is compiled


SUITES: tuple[Suite, ...] = (
    Suite("http aio", "L0_http/python_http_aio_test.py",
          all_of(_DOCUMENTED, renamed("simple_string", "another")), (SHM,)),
    Suite("grpc aio", "L0_grpc/python_grpc_aio_test.py",
          all_of(_DOCUMENTED, renamed("simple_string", "another"), renamed("simple_string", "one_more")), (SHM,)),
    Suite("http", "L0_http/http_test.py", _HTTP_MODELS, EXPLICIT, own_server=True, timeout_s=60,
          skips={"*loading_large_invalid_model": "another row"}),
    Suite("http: 3 GB", "L0_http/http_test.py", _HTTP_MODELS, EXPLICIT, only=("*loading_large_invalid_model",), timeout_s=600),
    Suite("generate", "L0_http/generate_endpoint_test.py", stored("python_models/generate_models")),
    Suite("input validation", "L0_input_validation/input_validation_test.py",
          all_of(stored("L0_input_validation/models"), made("qa_model_repository", "onnx_object_int32_int32"),
                 identity("pt_identity", dims="8", more="dynamic_batching { max_queue_delay_microseconds: 1000000 }\n")), (SHM,),
          only=("InputValTest*", "InputShapeTest*"), skips={"*wrong_input_shape_tensor_size": _GPU}),
    Suite("model names", "L0_input_validation/input_validation_test.py",
          made("qa_identity_model_repository", "onnx_zero_1_float32", "onnx_zero_1_object", "onnx_zero_1_bool"), ("--model-control-mode", "explicit"),
          only=("ModelNameValidationTest*",)),
    Suite("nan inf", "L0_nan_inf/nan_inf_test.py", all_of(stored("L0_nan_inf/models"), on_new_numpy("nan_inf_output"))),
    Suite("client nobatch", "L0_client_nobatch/client_test.py",
          made("qa_model_repository", "onnx_int32_int32_int32", "onnx_nobatch_int32_int32_int32", "onnx_int32_float32_float32", "onnx_nobatch_int32_float32_float32", "onnx_int32_int8_int8", "onnx_nobatch_int32_int8_int8")),
    Suite("string io", "L0_string_io/string_client_test.py", all_of(python("string_identity"), changed("string_identity", r"dims: *\[ *1 *\]", "dims: [ -1 ]"))),
    Suite("infer", "L0_infer/infer_test.py", made("qa_model_repository"), (SHM,),
          environment={"BACKENDS": "onnx", "ENSEMBLES": "0", "NOBATCH": "1", "BATCH": "1", "TRITON_SERVER_CPU_ONLY": "1", "CPU_ONLY": "1"}),
    Suite("infer variable", "L0_infer_variable/infer_variable_test.py", made("qa_variable_model_repository"), (SHM,),
          environment=_ONNX_ONLY, replaced=_NO_OTHERS, limit_s=1200),
    Suite("infer zero", "L0_infer_zero/infer_zero_test.py",
          all_of(made("qa_identity_model_repository"), made("qa_identity_ensemble_repository")), (SHM,), environment=_ONNX_ONLY, replaced=_NO_OTHERS, limit_s=1200),
    Suite("infer reshape", "L0_infer_reshape/infer_reshape_test.py",
          all_of(made("qa_reshape_model_repository"), made("qa_reshape_ensemble_repository")), (SHM,), environment=_ONNX_ONLY, replaced=_NO_OTHERS, skips={"*_ii*": _OTHER_MODELS}, limit_s=1200),
    Suite("shared memory: disabled", "L0_shared_memory/shared_memory_test.py", _SHM_MODELS, only=("*disabled_by_default",)),
    Suite("shared memory: http", "L0_shared_memory/shared_memory_test.py", _SHM_MODELS, (SHM,), environment={"CLIENT_TYPE": "http", "BACKENDS": "python"},
          own_server=True, only=("SharedMemoryTest*",), skips={"*disabled_by_default": "another row"}),
    Suite("shared memory: unregister, http", "L0_shared_memory/shared_memory_test.py", _SHM_SLOW, (SHM,), environment={"CLIENT_TYPE": "http"}, own_server=True, only=("*Unregister*_http",)),
    Suite("shared memory: unregister, grpc", "L0_shared_memory/shared_memory_test.py", _SHM_SLOW, (SHM,), environment={"CLIENT_TYPE": "grpc"}, own_server=True, only=("*Unregister*_grpc",)),
    Suite("parameters", "L0_parameters/parameters_test.py", stored("L0_parameters/model_repository"), only=("*params*",)),
    Suite("parameters: headers", "L0_parameters/parameters_test.py", stored("L0_parameters/model_repository"),
          ("--grpc-header-forward-pattern", "MY_HEADER.*", "--http-header-forward-pattern", "MY_HEADER.*"), only=("*test_headers",)),
    Suite("parameters: headers of one case", "L0_parameters/parameters_test.py", stored("L0_parameters/model_repository"),
          ("--grpc-header-forward-pattern", "(?-i)MY_HEADER.*"), only=("*case_sensitive",)),
    Suite("parameters: all headers", "L0_parameters/parameters_test.py", stored("L0_parameters/model_repository"),
          ("--grpc-header-forward-pattern", ".*", "--http-header-forward-pattern", ".*"), only=("*headers_reserved*",)),
    Suite("class count", "L0_parameters/class_count_test.py", all_of(python("identity_fp32"), identity("identity_bytes", kind="STRING"))),
    Suite("server status", "L0_server_status/server_status_test.py", _STATUS_MODELS, environment=_STATUS_VERSION, replaced=_STATUS_OF_ONNX, only=("ServerMetadataTest*",)),
    Suite("server status: versions", "L0_server_status/server_status_test.py", _STATUS_MODELS, _POLL, environment=_STATUS_VERSION,
          replaced=(*_STATUS_OF_ONNX, ("EXPECTED_MODEL_STATS: int = 144", "EXPECTED_MODEL_STATS: int = 7")),
          beside=_change_versions, only=("ModelMetadataTest*",)),
    Suite("logging endpoint", "L0_logging/logging_endpoint_test.py", examples("simple")),
    Suite("trace endpoint", "L0_trace/trace_endpoint_test.py", examples("simple"),
          ("--trace-config", "triton,file=global_unittest.log", "--trace-config", "level=TIMESTAMPS", "--trace-config", "rate=1")),
    *METRICS_TESTS,
    *LIFE_TESTS,
    *SCHEDULING,
)  # fmt: skip
