"""Triton's tests of loading, unloading and replacing models, of its metrics and of time-outs."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

from pathlib import Path

from tests.conformance.triton.suites.building import (
    Build,
    all_of,
    changed,
    custom,
    delay,
    examples,
    extended,
    identity,
    made,
    python,
    renamed,
    stored,
)
from tests.conformance.triton.suites.suite import Suite, copy

_FILE = "L0_lifecycle/lifecycle_test.py"
_EXPLICIT = ("--model-control-mode", "explicit")
_FOREIGN = "needs models of libtorch, TensorRT or OpenVINO"
_ONE = changed("*", r"^max_batch_size:.*", "max_batch_size: 1")
_SIMPLE = all_of(
    made("qa_model_repository", "onnx_float32_float32_float32"),
    made("qa_ensemble_model_repository", "simple_onnx_float32_float32_float32"),
    _ONE,
)
_IDENTITY = stored("L0_lifecycle", "identity_zero_1_int32")


def _without(*paths: str) -> Build:
    """Remove files and folders of models by globs."""

    def build(repository: Path, qa: Path) -> None:
        for each in paths:
            for path in repository.glob(each):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()

    return build


def _versions(name: str, *versions: int) -> Build:
    def build(repository: Path, qa: Path) -> None:
        for version in versions:
            (repository / name / str(version)).mkdir(exist_ok=True)

    return build


def _config(name: str, more: str) -> Build:
    """A configuration that the test puts in place of another."""

    def build(folder: Path, qa: Path) -> None:
        text = (qa / "L0_lifecycle" / "identity_zero_1_int32" / "config.pbtxt").read_text()
        (folder / name).write_text(text + more)

    return build


def _slow(where: str, seconds: int) -> Build:
    """A Python identity that takes its time to begin or to end."""
    parameters = "self, args" if where == "initialize" else "self"
    code = f"    def {where}({parameters}):\n        import time\n        time.sleep({seconds})\n"

    def build(repository: Path, qa: Path) -> None:
        with (repository / "identity_fp32" / "1" / "model.py").open("a") as model:
            model.write(code)

    return all_of(python("identity_fp32"), build)


def _second_identity(folder: Path, qa: Path) -> None:
    """`models_v2/identity_model`, by Python."""
    python("identity_fp32")(folder / "models_v2", qa)
    (folder / "models_v2" / "identity_fp32").rename(folder / "models_v2" / "identity_model")
    path = folder / "models_v2" / "identity_model" / "config.pbtxt"
    path.write_text(path.read_text().replace("identity_fp32", "identity_model"))


def _one(test: str, build: Build, *arguments: str, beside: Build | None = None) -> Suite:
    return Suite(
        "life-cycle", _FILE, build, (*_EXPLICIT, *arguments), only=(f"*.{test}",), beside=beside,
    )  # fmt: skip


_LOADED = ("--load-model=identity_zero_1_int32", "--no-strict-readiness")
_FIRST = extended("identity_zero_1_int32", "version_policy: { specific { versions: [1] }}\n")
_SLOW_ZERO = identity("custom_zero_1_float32", 1, "1", "dynamic_batching {}\n" + delay(5000))
LIFE_TESTS = (
    _one("test_model_control", _SIMPLE, "--no-strict-readiness"),
    _one("test_model_control_fail", all_of(made("qa_model_repository", "onnx_float32_float32_float32"), _without("*/[0-9]/*"), _ONE), "--no-strict-readiness"),
    _one("test_model_control_ensemble", _SIMPLE, "--no-strict-readiness"),
    _one("test_model_availability_on_reload", all_of(_IDENTITY, _versions("identity_zero_1_int32", 1)), *_LOADED),
    _one("test_model_availability_on_reload_2", all_of(_IDENTITY, _versions("identity_zero_1_int32", 1, 2), _FIRST), *_LOADED,
         beside=_config("config.pbtxt.v2", "version_policy: { specific { versions: [2] }}\n")),
    _one("test_model_availability_on_reload_3", all_of(_IDENTITY, _versions("identity_zero_1_int32", 1, 2), _FIRST), *_LOADED,
         beside=_config("config.pbtxt.new", "version_policy: { specific { versions: [1] }}\n")),
    _one("test_config_override", all_of(made("qa_model_repository", "onnx_float32_float32_float32"), _without("*/[13]/*"))),
    _one("test_file_override", all_of(made("qa_model_repository", "onnx_float32_float32_float32"), _without("*/1/*", "*/1")), "--load-model=onnx_float32_float32_float32"),
    _one("test_file_override_security", all_of(made("qa_model_repository", "onnx_float32_float32_float32"), _without("*/1/*", "*/1")), "--load-model=onnx_float32_float32_float32"),
    Suite("life-cycle", _FILE, _SLOW_ZERO, only=("*.test_shutdown_dynamic",)),
    Suite("life-cycle", _FILE, custom("custom_sequence_int32"), only=("*.test_shutdown_sequence",)),
    Suite("life-cycle", _FILE, all_of(stored("L0_lifecycle", "ensemble_zero_1_float32"), _SLOW_ZERO), only=("*.test_shutdown_ensemble",)),
    _one("test_concurrent_model_load", all_of(_IDENTITY, renamed("identity_zero_1_int32", "identity_model"), _without("identity_zero_1_int32/*", "identity_zero_1_int32")), beside=_second_identity),
    _one("test_concurrent_same_model_load_unload_stress", all_of(_IDENTITY, changed("identity_zero_1_int32", r'string_value: "10"', 'string_value: "0"'))),
    _one("test_concurrent_model_instance_load_speedup", all_of(_slow("initialize", 10), _without("identity_fp32/config.pbtxt"))),
    _one("test_model_config_overwite", all_of(_slow("initialize", 5), _without("identity_fp32/config.pbtxt")), "--load-model=identity_fp32"),
    _one("test_shutdown_while_background_unloading", _slow("finalize", 10), "--load-model=identity_fp32"),
    _one("test_shutdown_while_loading", _slow("initialize", 10)),
    Suite("life-cycle", _FILE, python("add_sub"), only=("*.test_shutdown_with_live_connection",), replaced=(
        # What the log says there, in our words.
        ("Waiting for in-flight requests to complete.", "requests in flight are finished"), ("Timeout 30: ", "shutting down"))),
    Suite("life-cycle", _FILE, python("add_sub"), only=(
        "*parse_error*", "*init_error*", "*parse_ignore*", "*dynamic_model*", "*dynamic_version*", "*dynamic_file*", "*multiple_model*",
        "*different_platform", "*repository_index", "*custom_config"), skips={"*": _FOREIGN}),
    Suite("life-cycle", _FILE, python("add_sub"), only=("*gpu_limit", "*model_reload_fail"), skips={"*": "needs a GPU"}),
    Suite("life-cycle", _FILE, python("add_sub"), only=("*load_speedup", "*load_unload", "*load_sanity", "*new_model_version"),
          skips={"*": "needs a delay inside of a C++ back end, several repositories or the server's log", "*instance_load_speedup": "another row"}),
)  # fmt: skip

_METRICS = "L0_metrics/metrics_config_test.py"


def _queue_sizes() -> Build:
    """The models of the test of pending requests."""

    def base(repository: Path, qa: Path) -> None:
        copy(qa / "L0_metrics" / "identity_delay", repository / "default")
        copy(qa / "L0_metrics" / "ensemble_delay", repository / "ensemble")

    def like(name: str, more: str = "", of: str = "default") -> Build:
        return all_of(renamed(of, name), extended(name, more))

    late = "max_queue_delay_microseconds: 100000"
    return all_of(
        base,
        changed("default", r"^max_batch_size.*", "max_batch_size: 4"),
        like("dynamic", f"\ndynamic_batching {{ {late} }}\n"),
        like("max_queue_size", f"\ndynamic_batching {{ {late} default_queue_policy {{ max_queue_size: 4 }} }}\n"),
        like("sequence_direct", f"\nsequence_batching {{ direct {{ {late}, minimum_slot_utilization: 1.0 }} }}\n"),
        like("sequence_oldest", f"\nsequence_batching {{ oldest {{ {late}, max_candidate_sequences: 4 }} }}\n"),
        like("default_composing"),
        like("dynamic_composing", of="dynamic"),
    )  # fmt: skip


_RAGGED = "ragged_element_count_acc_zero"
_SUMS = "BATCH_ACCUMULATED_ELEMENT_COUNT"


def _batch_input(name: str, kind: str) -> Build:
    """The model that shows its batch inputs, with the second of another kind."""
    return all_of(
        renamed("onnx_batch_input", name),
        changed(name, f"{_SUMS}_WITH_ZERO", kind),
        changed(name, "BATCH_ELEMENT_COUNT", _SUMS),
    )


_BATCH_INPUTS = all_of(
    made("qa_ragged_model_repository", "onnx_batch_input", "onnx_batch_item"),
    renamed("onnx_batch_input", _RAGGED),
    _batch_input("ragged_acc_shape", "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE"),
    _batch_input("batch_item_flatten", "BATCH_ITEM_SHAPE_FLATTEN"),
    changed("batch_item_flatten", r"(?s)\A(.*?)-1", r"\1-1, -1"),
    renamed("onnx_batch_item", "batch_item"),
    made("qa_identity_model_repository", "onnx_nobatch_zero_1_float32"),
    renamed("onnx_nobatch_zero_1_float32", "ragged_io"),
    changed("ragged_io", r"^max_batch_size:.*", "max_batch_size: 4"),
    changed("ragged_io", 'name: "INPUT0"', 'name: "INPUT0" allow_ragged_batch: true'),
    extended("ragged_io", 'batch_output [{target_name: "OUTPUT0" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "INPUT0" }]\n'
             "dynamic_batching { max_queue_delay_microseconds: 1000000 }\n"),
)  # fmt: skip

METRICS_TESTS = (
    Suite("metrics", _METRICS, stored("L0_metrics/unit_test_models"), (*_EXPLICIT, "--load-model=identity_cache_off"),
          only=("*inf_counters_exist", "*histograms_missing", "*inf_summaries_missing", "*cache_summaries_missing", "*cache_counters_missing")),
    Suite("metrics", _METRICS, stored("L0_metrics/unit_test_models"), (*_EXPLICIT, "--load-model=identity_cache_off"),
          only=("*counters_missing", "*summaries_exist*", "*quantiles*", "*histograms_exist", "*cache_*exist"),
          skips={"*": "asks for --metrics-config: native histograms stand for its summaries", "*cache_counters_missing": "another row"}),
    Suite("metrics", _METRICS, python("add_sub"), only=("*namespac*", "*pinned*"), skips={"*": "asks for folders of Triton's image in a label, or for pinned memory"}),
    Suite("metrics: queue", "L0_metrics/metrics_queue_size_test.py", _queue_sizes(),
          environment={"MAX_BATCH_SIZE": "4", "MAX_QUEUE_DELAY_US": "100000"}, own_server=True),
    Suite("time-outs: infer", "L0_client_timeout/client_infer_timeout_test.py", stored("L0_client_timeout/models")),
    Suite("time-outs: rest", "L0_client_timeout/client_non_infer_timeout_test.py", stored("L0_client_timeout/models"),
          skips={"*": "asks for a delay inside Triton's gRPC front end"}),
    Suite("restricted: http", "L0_http/http_restricted_api_test.py", examples("simple"),
          ("--http-restricted-api=model-repository:admin-key=admin-value", "--http-restricted-api=inference,metadata:infer-key=infer-value")),
    Suite("restricted: grpc", "L0_grpc/python_unit_test.py", examples("simple"),
          ("--grpc-restricted-protocol=model-repository:admin-key=admin-value", "--grpc-restricted-protocol=inference,health:infer-key=infer-value"),
          only=("RestrictedProtocolTest*",)),
    Suite("input size", "L0_http/http_input_size_limit_test.py", all_of(made("qa_identity_model_repository", "onnx_zero_1_float32"), examples("simple_identity")),
          only=("*default_limit*",)),
    Suite("input size: larger", "L0_http/http_input_size_limit_test.py", all_of(made("qa_identity_model_repository", "onnx_zero_1_float32"), examples("simple_identity")),
          (f"--max-input-size={1 << 27}",), only=("*large_input*",)),
    # A hundred times a million chunks, one a write: the client alone takes minutes.
    Suite("many chunks", "L0_http/http_request_many_chunks.py", examples("simple"), (*_EXPLICIT, "--load-model=simple", "--allow-client-shm"), timeout_s=1200),
    Suite("output names", "L0_output_name/output_name_test.py", all_of(
        made("qa_identity_model_repository", "onnx_nobatch_zero_1_float32"),
        # Whose model it is, is not what the test looks at.
        *(renamed("onnx_nobatch_zero_1_float32", f"{other}_nobatch_zero_1_float32") for other in ("libtorch", "plan")))),
    Suite("batch input", "L0_batch_input/batch_input_test.py", _BATCH_INPUTS, timeout_s=120, issue=6),
)  # fmt: skip
