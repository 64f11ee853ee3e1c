"""Triton's tests of batches, queues, sequences, ensembles, caches and limits, with their models."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from tests.conformance.triton.suites.building import (
    Build,
    all_of,
    changed,
    custom,
    delay,
    edited,
    extended,
    identity,
    made,
    python,
    renamed,
    stands_in,
    stored,
    text,
)
from tests.conformance.triton.suites.suite import Suite
from tests.conformance.triton.suites.table_ensembles import ENSEMBLES, square
from tests.conformance.triton.suites.table_python import PYTHON

_ONNX = {"BACKENDS": "onnx", "ENSEMBLES": "0"}
_NO_STATE = {"IMPLICIT_STATE": "0", "INITIAL_STATE_FILE": "0", "INITIAL_STATE_ZERO": "0"}
_EXPLICIT = ("--model-control-mode", "explicit")


def _held(requests: int, backlog: int | None = None) -> Mapping[str, str]:
    held = {"TRITONSERVER_DELAY_SCHEDULER": str(requests)}
    if backlog is not None:
        held["TRITONSERVER_BACKLOG_DELAY_SCHEDULER"] = str(backlog)
    return held


# ---- L0_batcher
_EIGHT = changed("*", r"^max_batch_size:.*", "max_batch_size: 8")
_FIRST = changed("*", r"^version_policy:.*", "version_policy: { specific { versions: [1] }}")


def _batching(folder: str, settings: str) -> Build:
    name = "onnx_float32_float32_float32"
    return all_of(
        made(folder, name), _EIGHT, _FIRST, extended(name, f"dynamic_batching {{ {settings} }}\n")
    )


_DELAYED = "preferred_batch_size: [ 2, 6 ] max_queue_delay_microseconds: 10000000"
_RAGGED = all_of(
    _batching("qa_variable_model_repository", _DELAYED),
    changed("*", "16", "-1"),
    made("qa_identity_model_repository", "onnx_nobatch_zero_1_float32"),
    renamed("onnx_nobatch_zero_1_float32", "onnx_zero_1_float32"),
    changed("onnx_zero_1_float32", r"^max_batch_size:.*", "max_batch_size: 8"),
    changed("onnx_zero_1_float32", 'name: "INPUT0"', 'name: "INPUT0" allow_ragged_batch: true'),
    extended(
        "onnx_zero_1_float32",
        'batch_output [{ target_name: "OUTPUT0" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "INPUT0" }]\n'
        f"dynamic_batching {{ {_DELAYED} }}\n",
    ),
    custom("custom_zero_1_float32"),
    changed("custom_zero_1_float32", r"^max_batch_size:.*", "max_batch_size: 8"),
    changed("custom_zero_1_float32", r"dims:.*\[.*\]", "dims: [ -1 ]"),
    changed("custom_zero_1_float32", 'name: "INPUT0"', 'name: "INPUT0" allow_ragged_batch: true'),
    extended("custom_zero_1_float32", f"dynamic_batching {{ {_DELAYED} }}\n"),
)
_BATCHES = (
    "*static_batch*", "*multi_batch_not_preferred", "*multi_batch_gt_max*", "*multi_batch_sum_gt*",
    "*multi_same_output*", "*multi_different_output*", "*delayed_sum_gt*", "*multi_batch_use_biggest*",
    "*best_preferred", "*use_max_batch",
)  # fmt: skip
_BATCH_HELD = {
    "*delayed_sum_gt*": _held(2), "*multi_batch_use_biggest*": _held(6),
    "*use_best_preferred": _held(3), "*use_max_batch": _held(3), "*delayed_preferred*": _held(4),
    "*only_aligned": _held(4), "*only_unaligned": _held(5), "*only_use_biggest*": _held(7),
    "*only_use_no*": _held(3),
    "*queue_delay_only_default": {"MAX_QUEUE_DELAY_MICROSECONDS": "0"},
    "*queue_delay_only_non_default": {"MAX_QUEUE_DELAY_MICROSECONDS": "20000"},
    "*preserve_ordering": _held(12),
}  # fmt: skip
_SHAPES = ("*different_shape*",)


def _batcher(name: str, build: Build, only: tuple[str, ...], kind: str = "FIXED") -> Suite:
    return Suite(
        f"batcher: {name}", "L0_batcher/batcher_test.py", build,
        environment=_ONNX | {"BATCHER_TYPE": kind}, only=only, settings=_BATCH_HELD, issue=6,
    )  # fmt: skip


_BATCHER = (
    _batcher("fixed shapes", _batching("qa_model_repository", _DELAYED),
             _BATCHES),
    _batcher("variable shapes", _RAGGED, _SHAPES, "VARIABLE"),
    _batcher("preferred sizes only", _batching("qa_model_repository", "preferred_batch_size: [ 4, 6 ]"), ("*preferred_batch_only*",)),
    _batcher("delay only",
             identity("custom_zero_1_float32", 100, more=f"dynamic_batching {{ max_queue_delay_microseconds: 0 }}\n{delay(100)}"), ("*max_queue_delay_only*",)),
    _batcher("ordering",
             identity("custom_zero_1_float32", 4, more=f"dynamic_batching {{ preferred_batch_size: [ 4 ] preserve_ordering: true }}\ninstance_group [ {{ count: 2 }} ]\n{delay(100)}"), ("*preserve_ordering",)),
    Suite("queue timeout", "L0_batcher/queue_timeout_test.py",
          identity("dynamic_batch", 1, more="instance_group [{ count: 1 kind: KIND_CPU }]\ndynamic_batching { preferred_batch_size: [ 1 ] default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000000 max_queue_size: 8 } }\n" + delay(8000)), issue=6),
)  # fmt: skip


# ---- L0_model_queue
def _queue(test: str, batching: str, more: str = "") -> Suite:
    model = identity("custom_zero_1_float32", 32, more=f"instance_group [ {{ count: 1 }} ]\ndynamic_batching {{ {batching} }}\n{more}")  # fmt: skip
    return Suite(
        "model queue", "L0_model_queue/model_queue_test.py",
        all_of(model, stored("L0_model_queue", "ensemble_zero_1_float32")), only=(f"*.{test}",), issue=6,
    )  # fmt: skip


_EIGHTS = "preferred_batch_size: [ 4, 8 ]"
_LONG = f"{_EIGHTS} max_queue_delay_microseconds: 10000000"
_QUEUE = (
    _queue("test_max_queue_size", f"{_EIGHTS} default_queue_policy {{ max_queue_size: 8 }}", delay(5000)),
    _queue("test_policy_delay", f"{_LONG} default_queue_policy {{ timeout_action: DELAY default_timeout_microseconds: 100000 }}"),
    _queue("test_policy_reject", f"{_LONG} default_queue_policy {{ default_timeout_microseconds: 100000 }}"),
    _queue("test_timeout_override", f"{_LONG} default_queue_policy {{ allow_timeout_override: true default_timeout_microseconds: 1000000 }}"),
    _queue("test_priority_levels", f"{_LONG} priority_levels: 2 default_priority_level: 2"),
    _queue("test_max_priority_levels", f"{_LONG} priority_levels: 18446744073709551615 default_priority_level: 4294967296"),
    _queue("test_priority_with_policy", "preferred_batch_size: [ 4, 8, 32 ] max_queue_delay_microseconds: 10000000 priority_levels: 2 default_priority_level: 2 "
           "default_queue_policy { timeout_action: DELAY allow_timeout_override: true default_timeout_microseconds: 11000000 } "
           "priority_queue_policy { key: 2 value: { timeout_action: REJECT allow_timeout_override: true default_timeout_microseconds: 11000000 } }"),
)  # fmt: skip

# ---- L0_sequence_batcher and its kin
_SEQUENCES = (
    "*test_simple_sequence", "*length1_sequence", "*test_batch_size", "*no_sequence_*",
    "*no_correlation_id", "*backlog*", "*half_batch", "*skip_batch", "*full_batch", "*ragged_batch",
)  # fmt: skip
_SEQUENCE_HELD = {
    "*half_batch": _held(8, 0), "*skip_batch": _held(12, 0), "*full_batch": _held(12, 0),
    "*ragged_batch": _held(12, 0), "*.test_backlog": _held(12, 0),
    "*backlog_fill": _held(10, 2), "*backlog_fill_no_end": _held(10, 3),
    "*backlog_same_correlation_id": _held(12, 2), "*same_correlation_id_no_end": _held(16, 0),
    "*backlog_sequence_timeout": _held(4, 0), "*ragged_batch_allowed": _held(12, 0),
    "*queue_delay*": _held(2, 0),
}  # fmt: skip
_SEQUENCE_FILE = "L0_sequence_batcher/sequence_batcher_test.py"


def _python_sequence(name: str) -> Build:
    return all_of(
        made("qa_sequence_model_repository", f"onnx_{name}"),
        renamed(f"onnx_{name}", f"python_{name}"),
        changed(f"python_{name}", r"^platform:.*", 'backend: "python"'),
        lambda repository, qa: _python_code(repository / f"python_{name}" / "1", qa),
    )


def _python_code(folder: Path, qa: Path) -> None:
    """Replace a generated file by the Python model that does the same."""
    for each in folder.iterdir():
        each.unlink()
    (folder / "model.py").write_text(
        (qa / "python_models" / "sequence_int32" / "model.py").read_text()
    )


def _instances(rows: int, count: int) -> Build:
    return all_of(
        changed("*", r"^max_batch_size:.*", f"max_batch_size: {rows}"),
        changed("*", r"kind: KIND_(CPU|GPU)", rf"kind: KIND_CPU\ncount: {count}"),
    )


_STATEFUL = all_of(
    made("qa_sequence_model_repository", "onnx_sequence_int32", "onnx_sequence_bool"),
    custom("custom_sequence_int32"),
    _python_sequence("sequence_int32"), _python_sequence("sequence_bool"),
)  # fmt: skip
_UNBATCHED = all_of(
    made("qa_sequence_model_repository", "onnx_nobatch_sequence_int32", "onnx_nobatch_sequence_bool"),
    _python_sequence("nobatch_sequence_int32"), _python_sequence("nobatch_sequence_bool"),
    changed("*", r"kind: KIND_(CPU|GPU)", r"kind: KIND_CPU\ncount: 4"),
)  # fmt: skip


def _sequences(
    name: str,
    build: Build,
    instances: int,
    backends: str = "onnx custom python",
    *,
    batched: bool = True,
    state: Mapping[str, str] = _NO_STATE,
) -> Suite:
    environment = {
        "BACKENDS": backends, "ENSEMBLES": "0", **state,
        "NO_BATCHING": "0" if batched else "1", "MODEL_INSTANCES": str(instances),
        "BATCHER_TYPE": "FIXED",
    }  # fmt: skip
    return Suite(
        f"sequences: {name}", _SEQUENCE_FILE, build, environment=environment, only=_SEQUENCES,
        settings=_SEQUENCE_HELD, timeout_s=400, limit_s=2400, issue=6,
    )  # fmt: skip


def _delays() -> Build:
    head = "sequence_batching {\ndirect { max_queue_delay_microseconds: 3000000 minimum_slot_utilization: %s }"
    steps: list[Build] = [custom("custom_sequence_int32"), _instances(4, 1)]
    for ending, share in (("_half", "0.5"), ("_full", "1")):
        steps.append(renamed("custom_sequence_int32", f"custom_sequence_int32{ending}"))
        steps.append(
            changed(f"custom_sequence_int32{ending}", r"^sequence_batching \{", head % share)
        )
    steps.append(changed("custom_sequence_int32", r"^sequence_batching \{", head % "0"))
    return all_of(*steps)


_DYNA = all_of(
    made("qa_dyna_sequence_model_repository", "onnx_dyna_sequence_int32", "onnx_nobatch_dyna_sequence_int32"),
    custom("custom_dyna_sequence_int32"),
    renamed("custom_dyna_sequence_int32", "custom_string_dyna_sequence_int32"),
    changed("custom_string_dyna_sequence_int32", r"TYPE_UINT64", "TYPE_STRING"),
)  # fmt: skip
_CANDIDATES = all_of(
    changed("*", r"max_candidate_sequences:.*", "max_candidate_sequences:4"),
    changed("*", r"max_queue_delay_microseconds:.*", "max_queue_delay_microseconds:5000000"),
)
_STATE = _NO_STATE | {"IMPLICIT_STATE": "1"}
_IMPLICIT = made(
    "qa_sequence_implicit_model_repository",
    *(f"onnx_sequence_{kind}" for kind in ("int32", "bool", "object")),
)
_IMPLICIT_UNBATCHED = all_of(
    made("qa_sequence_implicit_model_repository", *(f"onnx_nobatch_sequence_{kind}" for kind in ("int32", "bool", "object"))),
    changed("*", r"kind: KIND_(CPU|GPU)", r"kind: KIND_CPU\ncount: 4"),
)  # fmt: skip
_IMPLICIT_DYNA = made(
    "qa_dyna_sequence_implicit_model_repository",
    "onnx_dyna_sequence_int32",
    "onnx_nobatch_dyna_sequence_int32",
)
_DYNA_FILE = "L0_dyna_sequence_batcher/dyna_sequence_batcher_test.py"
_DYNA_BACKENDS = {"BACKENDS": "onnx custom custom_string", **_NO_STATE}


def _corrid(kind: str) -> Suite:
    more = f'sequence_batching {{ control_input [{{ name: "CORRID" control [{{ kind: CONTROL_SEQUENCE_CORRID data_type: {kind} }}] }}] }}\n'
    return Suite(
        f"correlation id: {kind[5:]}", "L0_sequence_corrid_batcher/sequence_corrid_batcher_test.py",
        all_of(python("add_sub"), extended("add_sub", more)), only=("*corrid_data_type",),
        environment={"TRITONSERVER_CORRID_DATA_TYPE": kind, "NO_BATCHING": "1", "MODEL_INSTANCES": "1"}, issue=6,
    )  # fmt: skip


_SEQUENCE = (
    _sequences("1 instance of 4 rows", all_of(_STATEFUL, _instances(4, 1)), 1),
    _sequences("2 instances of 2 rows", all_of(_STATEFUL, _instances(2, 2)), 2),
    _sequences("4 instances of 1 row", all_of(_STATEFUL, _instances(1, 4)), 4),
    _sequences("4 instances without batches", _UNBATCHED, 4, "onnx python", batched=False),
    Suite("sequences: ragged", _SEQUENCE_FILE,
          all_of(custom("custom_sequence_int32"), edited("custom_sequence_int32", 'name: "INPUT"', 'name: "INPUT"\nallow_ragged_batch: true')),
          environment={**_NO_STATE, "BACKENDS": "custom", "ENSEMBLES": "0", "NO_BATCHING": "0", "MODEL_INSTANCES": "1", "BATCHER_TYPE": "FIXED"},
          only=("*ragged_batch_allowed",), settings=_SEQUENCE_HELD, issue=6),
    Suite("sequences: delays", _SEQUENCE_FILE, _delays(),
          environment={**_NO_STATE, "BACKENDS": "custom", "ENSEMBLES": "0", "NO_BATCHING": "0", "MODEL_INSTANCES": "1", "BATCHER_TYPE": "FIXED"},
          only=("*queue_delay*",), settings=_SEQUENCE_HELD, issue=6),
    Suite("sequences: timeouts", _SEQUENCE_FILE,
          all_of(stored("L0_sequence_batcher/request_timeout_models"), stands_in("custom_sequence_int32_timeout")),
          environment={**_NO_STATE, "BACKENDS": "custom", "ENSEMBLES": "0", "NO_BATCHING": "0", "MODEL_INSTANCES": "1", "BATCHER_TYPE": "FIXED"}, only=("SequenceBatcherRequestTimeoutTest*",), issue=6),
    Suite("sequences: oldest", _DYNA_FILE, _DYNA, environment=_DYNA_BACKENDS | {"NO_BATCHING": "1"},
          only=("*simple_sequence", "*length1*"), own_server=True, issue=6),
    Suite("sequences: oldest, batched", _DYNA_FILE, all_of(_DYNA, _CANDIDATES),
          environment=_DYNA_BACKENDS | {"NO_BATCHING": "0"}, only=("*different_shape", "*multi_sequence", "*parallel_sequence", "*backlog*"), own_server=True, issue=6),
    Suite("sequences: oldest, ragged", _DYNA_FILE,
          all_of(custom("custom_dyna_sequence_int32"), edited("custom_dyna_sequence_int32", 'name: "INPUT"', 'name: "INPUT"\nallow_ragged_batch: true'), _CANDIDATES),
          environment=_DYNA_BACKENDS | {"NO_BATCHING": "0"}, only=("*allow_ragged",), issue=6),
    _sequences("implicit state, 1 instance of 4 rows", all_of(_IMPLICIT, _instances(4, 1)), 1, "onnx", state=_STATE),
    _sequences("implicit state, 4 instances without batches", _IMPLICIT_UNBATCHED, 4, "onnx", batched=False, state=_STATE),
    Suite("sequences: implicit state, oldest", _DYNA_FILE, _IMPLICIT_DYNA, environment={"BACKENDS": "onnx", **_STATE, "NO_BATCHING": "1"},
          only=("*simple_sequence", "*length1*"), own_server=True, issue=6),
    Suite("sequences: implicit state, oldest, batched", _DYNA_FILE, all_of(_IMPLICIT_DYNA, _CANDIDATES), environment={"BACKENDS": "onnx", **_STATE, "NO_BATCHING": "0"},
          only=("*multi_sequence", "*parallel_sequence", "*backlog*"), own_server=True, issue=6),
    *(_corrid(f"TYPE_{kind}") for kind in ("STRING", "UINT32", "INT32", "UINT64", "INT64")),
    Suite("correlation id: rows", "L0_sequence_corrid_batcher/sequence_corrid_batcher_test.py",
          all_of(made("qa_dyna_sequence_model_repository", "onnx_dyna_sequence_int32"),
                 renamed("onnx_dyna_sequence_int32", "plan_dyna_sequence_int32"),
                 changed("*", r"(?s)oldest.*\{.*?\}.*control_input", "control_input"), _instances(1, 4)),
          environment={"BACKENDS": "onnx", "NO_BATCHING": "0", "MODEL_INSTANCES": "4"}, only=("*skip_batch",), settings={"*": _held(12, 0)}, issue=6),
    Suite("iterative sequence", "L0_iterative_sequence/iterative_sequence_e2e.py",
          all_of(stored("L0_iterative_sequence/models"), stands_in("iterative_sequence")), _EXPLICIT,
          skips={"*reschedule_error": "an iterative sequence goes on in its own process, where it is never idle"}, issue=6),
)  # fmt: skip

# ---- L0_rate_limiter
_LIMITED = all_of(
    identity("custom_zero_1_float32", 4, more='instance_group [{ kind: KIND_CPU count: 1 rate_limiter { resources [{name: "resource1" count: 4 }]} }]\n' + delay(100)),
    identity("custom_zero_1_float32_v2", 4, more='instance_group [{ kind: KIND_CPU count: 1 rate_limiter { resources [{name: "resource1" count: 2 }, {name: "resource2" global: true count: 2 }] priority: 2} }]\n' + delay(100)),
)  # fmt: skip
_RATE = "L0_rate_limiter/rate_limiter_test.py"
_TWO_GROUPS = (
    'instance_group [{ kind: KIND_CPU count: 1 rate_limiter { resources [{name: "resource1" count: 4 }]} },'
    ' { kind: KIND_CPU count: 1 rate_limiter { resources [{name: "resource1" count: 2 }, {name: "resource2" global: true count: 2 }] priority: 2} }]\n'
)
_THREE_GROUPS = _TWO_GROUPS.rstrip()[:-1] + ', { kind: KIND_CPU count: 2 rate_limiter { resources [{name: "resource1" count: 2 }, {name: "resource2" global: true count: 2 }] priority: 3} }]\n'  # fmt: skip
_RATES = ("--rate-limit=execution_count",)
_LIMITER = (
    Suite("rate limiter: limited", _RATE, _LIMITED, (*_RATES, "--rate-limit-resource=resource1:4", "--rate-limit-resource=resource2:2"), only=("*limited_resource",), issue=6),
    Suite("rate limiter: derived", _RATE, _LIMITED, _RATES, only=("*limited_resource",), issue=6),
    Suite("rate limiter: plenty", _RATE, _LIMITED, (*_RATES, "--rate-limit-resource=resource1:6", "--rate-limit-resource=resource2:2"), only=("*plenty_resource",), issue=6),
    Suite("rate limiter: two groups", _RATE, identity("custom_zero_1_float32", 4, more=_TWO_GROUPS + delay(100)), _RATES, only=("*test_single_model",), issue=6),
    Suite("rate limiter: batches", _RATE, identity("custom_zero_1_float32", 4, more=_TWO_GROUPS + "dynamic_batching { preferred_batch_size: [ 1, 2, 3, 4 ] max_queue_delay_microseconds: 5000000 }\n" + delay(1000)), _RATES,
          only=("*single_model_dynamic_batching",), settings={"*": _held(8)}, issue=6),
    Suite("rate limiter: sequences", _RATE,
          all_of(custom("custom_sequence_int32"), changed("*", r"max_sequence_idle_microseconds:.*", "max_sequence_idle_microseconds: 1000000"),
                 changed("*", r"^max_batch_size:.*", "max_batch_size: 1"), changed("*", r"instance_group \[\s*\{[^}]*\}\s*\]", _THREE_GROUPS)),
          _RATES, only=("*single_model_sequence_batching",), issue=6),
)  # fmt: skip

# ---- the rest
_STEP = '{{ model_name: "dynamic_batch" model_version: -1 input_map {{ key: "INPUT0" value: "{0}" }} output_map {{ key: "OUTPUT0" value: "{1}" }} }}'
_CANCELLED = all_of(
    identity("dynamic_batch", 2, more="instance_group [{ count: 1 kind: KIND_CPU }]\ndynamic_batching { max_queue_delay_microseconds: 600000 }\n" + delay(6000)),
    identity("sequence_direct", 1, more="instance_group [{ count: 1 kind: KIND_CPU }]\nsequence_batching { direct { } max_sequence_idle_microseconds: 6000000 }\n" + delay(6000)),
    identity("sequence_oldest", 1, more="instance_group [{ count: 1 kind: KIND_CPU }]\nsequence_batching { oldest { max_candidate_sequences: 1 } max_sequence_idle_microseconds: 6000000 }\n" + delay(6000)),
    text("ensemble_model", 'name: "ensemble_model"\nplatform: "ensemble"\nmax_batch_size: 1\ninput [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\noutput [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
         f'ensemble_scheduling {{ step [ {_STEP.format("INPUT0", "out")}, {_STEP.format("out", "OUTPUT0")} ] }}\n'),
)  # fmt: skip
_OPTIONAL = stored("L0_optional_input/models")
_OTHERS = (
    Suite("response statistics", "L0_response_statistics/response_statistics_test.py",
          all_of(square("square_int32", INFER_DELAY_NS=400000000, OUTPUT_DELAY_NS=200000000, FAIL_COUNT=2, EMPTY_COUNT=1),
                 square("square_int32_slow", INFER_DELAY_NS=1200000000, OUTPUT_DELAY_NS=800000000, CANCEL_DELAY_NS=400000000)), issue=6),
    Suite("cancellation: gRPC", "L0_request_cancellation/grpc_cancellation_test.py",
          identity("custom_identity_int32", 1024, kind="INT32", more=delay(10000)),
          skips={"*cancellation_at_step_start": "asks for a delay inside Triton's gRPC state machine", "*during_cancellation": "asks for a delay inside Triton's gRPC state machine",
                 "*before_finish_*": "asks for a delay inside Triton's gRPC state machine", "*before_response_complete*": "asks for a delay inside Triton's gRPC state machine"}, own_server=True, issue=6),
    Suite("cancellation: schedulers", "L0_request_cancellation/scheduler_test.py", _CANCELLED, own_server=True, issue=6),
    Suite("optional inputs", "L0_optional_input/optional_input_test.py", _OPTIONAL, own_server=True, issue=6),
    Suite("ensemble cache", "L0_response_cache/ensemble_cache_test.py", made("qa_model_repository", "onnx_float32_float32_float32"),
          (*_EXPLICIT, "--cache-config", "local,size=10840"), skips={"*": "needs an ensemble of a generator that needs TensorFlow"}, issue=6),
)  # fmt: skip

SCHEDULING: tuple[Suite, ...] = tuple(
    chain(_BATCHER, _QUEUE, _SEQUENCE, _LIMITER, ENSEMBLES, _OTHERS, PYTHON)
)
