"""The test files of Triton that run against us, each with its models and with what cannot run."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.conformance.triton import sources
from tests.conformance.triton.suites.suite import Suite, copy

Build = Callable[[Path, Path], None]

_GPU = "needs a GPU"
_TORCH = "needs a libtorch model"


def examples(*names: str) -> Build:
    """Models of Triton's documentation."""

    def build(repository: Path, qa: Path) -> None:
        for name in names:
            copy(qa.parent / "docs" / "examples" / "model_repository" / name, repository / name)

    return build


def made(folder: str, *names: str) -> Build:
    """Models that a generator makes; all of the folder without names."""

    def build(repository: Path, qa: Path) -> None:
        source = sources.generated(folder)
        for each in sorted(source.iterdir()):
            if not names or each.name in names:
                copy(each, repository / each.name)

    return build


def stored(folder: str, *names: str) -> Build:
    """Models that lie in the test's own folder."""

    def build(repository: Path, qa: Path) -> None:
        for each in sorted((qa / folder).iterdir()):
            if each.is_dir() and (not names or each.name in names):
                copy(each, repository / each.name)

    return build


def python(*names: str) -> Build:
    """Models of `qa/python_models`, laid out as a repository has them."""

    def build(repository: Path, qa: Path) -> None:
        for name in names:
            source = qa / "python_models" / name
            folder = repository / name
            (folder / "1").mkdir(parents=True)
            for path in source.iterdir():
                if path.name == "config.pbtxt":
                    shutil.copy(path, folder)
                elif path.is_file():
                    shutil.copy(path, folder / "1")

    return build


def text(name: str, config: str, code: str = "") -> Build:
    """A model written here."""

    def build(repository: Path, qa: Path) -> None:
        version = repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version.parent / "config.pbtxt").write_text(config)
        if code:
            (version / "model.py").write_text(code)

    return build


def all_of(*builds: Build) -> Build:
    """All of these."""

    def build(repository: Path, qa: Path) -> None:
        for each in builds:
            each(repository, qa)

    return build


def edited(name: str, old: str, new: str) -> Build:
    """Change a configuration that another step has put there."""

    def build(repository: Path, qa: Path) -> None:
        path = repository / name / "config.pbtxt"
        written = path.read_text()
        if old not in written:
            raise RuntimeError(f"{path} has no {old!r}")
        path.write_text(written.replace(old, new))

    return build


def renamed(name: str, to: str) -> Build:
    """A copy of a model under another name."""

    def build(repository: Path, qa: Path) -> None:
        shutil.copytree(repository / name, repository / to)
        path = repository / to / "config.pbtxt"
        path.write_text(path.read_text().replace(f'name: "{name}"', f'name: "{to}"', 1))

    return build


def extended(name: str, more: str) -> Build:
    """Add to a configuration."""

    def build(repository: Path, qa: Path) -> None:
        with (repository / name / "config.pbtxt").open("a") as config:
            config.write(more)

    return build


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

_FLOAT_IO = 'max_batch_size: {batch}\ninput [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\noutput [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'


def identity(
    name: str, batch: int = 8, dims: str = "-1", more: str = "", kind: str = "FP32"
) -> Build:
    """An identity model."""
    config = _FLOAT_IO.format(batch=batch, dims=dims).replace("FP32", kind)
    return text(name, f'name: "{name}"\nbackend: "identity"\n{config}{more}')


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
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")

SUITES: tuple[Suite, ...] = (
    Suite("http aio", "L0_http/python_http_aio_test.py",
          all_of(made("qa_model_repository", "onnx_int32_int32_int32"), _DOCUMENTED), (SHM,)),
    Suite("grpc aio", "L0_grpc/python_grpc_aio_test.py",
          all_of(made("qa_model_repository", "onnx_int32_int32_int32"), _DOCUMENTED, renamed("simple_string", "another")), (SHM,)),
    Suite("http", "L0_http/http_test.py", _HTTP_MODELS, EXPLICIT),
    Suite("generate", "L0_http/generate_endpoint_test.py", stored("python_models/generate_models")),
    Suite("input validation", "L0_input_validation/input_validation_test.py",
          all_of(stored("L0_input_validation/models"), made("qa_model_repository", "onnx_object_int32_int32")), (SHM,),
          skips={"*pt_identity*": _TORCH, "InputShapeTest.test_client_input_shape_validation": _TORCH,
                 "InputShapeTest.test_client_input_string_shape_validation": _TORCH,
                 "*trt*": _GPU, "*shape_tensor*": _GPU}),
    Suite("nan inf", "L0_nan_inf/nan_inf_test.py", stored("L0_nan_inf/models")),
    Suite("client nobatch", "L0_client_nobatch/client_test.py",
          made("qa_model_repository", "onnx_int32_int32_int32", "onnx_nobatch_int32_int32_int32", "onnx_int32_float32_float32", "onnx_nobatch_int32_float32_float32")),
    Suite("string io", "L0_string_io/string_client_test.py", made("qa_identity_model_repository", "onnx_zero_1_object", "onnx_nobatch_zero_1_object")),
    Suite("infer", "L0_infer/infer_test.py", made("qa_model_repository"), (SHM,),
          environment={"BACKENDS": "onnx", "ENSEMBLES": "0", "NOBATCH": "1", "BATCH": "1", "TRITON_SERVER_CPU_ONLY": "1", "CPU_ONLY": "1"}),
    Suite("infer variable", "L0_infer_variable/infer_variable_test.py", made("qa_variable_model_repository"), (SHM,),
          environment={"BACKENDS": "onnx", "ENSEMBLES": "0", "CPU_ONLY": "1"}),
    Suite("infer zero", "L0_infer_zero/infer_zero_test.py",
          all_of(made("qa_identity_model_repository")), (SHM,), environment={"BACKENDS": "onnx", "ENSEMBLES": "0", "CPU_ONLY": "1"}),
    Suite("infer reshape", "L0_infer_reshape/infer_reshape_test.py", made("qa_reshape_model_repository"), (SHM,),
          environment={"BACKENDS": "onnx", "ENSEMBLES": "0", "CPU_ONLY": "1"}),
    Suite("shared memory", "L0_shared_memory/shared_memory_test.py",
          all_of(python("add_sub", "execute_delayed_model"), renamed("add_sub", "simple")), (SHM,),
          own_server=True),
    Suite("parameters", "L0_parameters/parameters_test.py", stored("L0_parameters/model_repository")),
    Suite("class count", "L0_parameters/class_count_test.py", stored("L0_parameters/model_repository")),
    Suite("server status", "L0_server_status/server_status_test.py",
          made("qa_model_repository", "onnx_int32_int8_int8", "onnx_int32_int32_int32", "onnx_nobatch_int32_int32_int32"),
          own_server=True),
    Suite("simple ensemble", "L0_simple_ensemble/ensemble_test.py", stored("L0_simple_ensemble/models"), issue=6),
    Suite("decoupled", "L0_decoupled/decoupled_test.py", stored("L0_decoupled/models"), issue=6),
    Suite("logging endpoint", "L0_logging/logging_endpoint_test.py", examples("simple")),
    Suite("trace endpoint", "L0_trace/trace_endpoint_test.py", examples("simple"), EXPLICIT),
    Suite("python: bls", "L0_backend_python/bls/bls_test.py", python("identity_fp32"), issue=6),
    Suite("python: parameters", "L0_backend_python/parameters/response_parameters_test.py",
          python("response_parameters", "response_parameters_decoupled", "response_parameters_bls"), issue=6),
    Suite("python: response sender", "L0_backend_python/response_sender/response_sender_test.py",
          python("response_sender", "response_sender_complete_final", "response_sender_until_cancelled"), issue=6),
    Suite("python: lifecycle", "L0_backend_python/lifecycle/lifecycle_test.py",
          python("execute_error", "execute_return_error", "error_code", "identity_fp32"), issue=6),
    Suite("python: reschedule", "L0_backend_python/request_rescheduling/request_rescheduling_test.py",
          python("request_rescheduling_addsub"), issue=6),
    Suite("python: io", "L0_backend_python/io/io_test.py", python("ensemble_io", "dlpack_io_identity", "dlpack_io_identity_decoupled"), issue=6),
    Suite("model queue", "L0_model_queue/model_queue_test.py", identity("custom_zero_1_float32"), issue=6, own_server=True),
)  # fmt: skip
