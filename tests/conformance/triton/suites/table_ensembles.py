"""Triton's tests of ensembles and of models that answer any number of times, with their models."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.conformance.triton.suites.building import (
    Build,
    all_of,
    changed,
    code,
    edited,
    examples,
    extended,
    python,
    renamed,
    second,
    stands_in,
    stored,
    text,
)
from tests.conformance.triton.suites.suite import Suite

# ---- L0_decoupled
_SQUARE_IO = 'max_batch_size: 0\nmodel_transaction_policy { decoupled: True }\ninput [{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }]\noutput [{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }]\n'


def square(name: str, **parameters: int) -> Build:
    """A model that answers the number n n times; `parameters` are those of the back end."""
    told = "".join(
        f'parameters [{{ key: "CUSTOM_{key}" value: {{ string_value: "{value}" }} }}]\n'
        for key, value in parameters.items()
    )
    return all_of(text(name, f'backend: "square"\n{_SQUARE_IO}{told}'), stands_in(name))


_REPEAT = all_of(
    text("repeat_int32", 'name: "repeat_int32"\nbackend: "repeat"\nmax_batch_size: 0\nmodel_transaction_policy { decoupled: True }\n'
         'input [ { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }, { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] }, { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] } ]\n'
         'output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] } ]\n'),
    stands_in("repeat_int32"),
)  # fmt: skip
_DECOUPLED = "L0_decoupled/decoupled_test.py"
_TORCH = "libtorch_nobatch_int32_int32_int32"
_DECOUPLED_MODELS = all_of(
    python("add_sub"),
    changed("add_sub", "TYPE_FP32", "TYPE_INT32"),
    changed("add_sub", r"dims:.*\[.*\]", "dims: [ 1 ]"),
    renamed("add_sub", _TORCH),
    stored("L0_decoupled/models"),
    changed("fan_repeat", "OUTPUT__1", "OUTPUT0"),  # where the sum is
    _REPEAT,
    square("square_int32"),
)


def _decoupled(test: str, limit_s: int, **more: Mapping[str, str]) -> Suite:
    """Its tests wait for minutes: a row for each."""
    return Suite(
        f"decoupled: {test.replace('_', ' ')}", _DECOUPLED, _DECOUPLED_MODELS, only=(f"DecoupledTest.test_{test}",),
        timeout_s=limit_s, limit_s=limit_s + 120, issue=6, **more,
    )  # fmt: skip


# ---- L0_simple_ensemble
_BACKPRESSURE = "L0_simple_ensemble/ensemble_backpressure_test.py"
_MODELS = "L0_simple_ensemble/backpressure_test_models"
_QUEUE = "\ndynamic_batching {{ preferred_batch_size: [ 1 ] default_queue_policy {{ max_queue_size: {} }} }}\n"
_PLAIN_ENSEMBLE = "ensemble_disabled_max_inflight_requests"


def _is_called(name: str, to: str) -> Build:
    """Give a model another name."""

    def build(repository: Path, qa: Path) -> None:
        (repository / name).rename(repository / to)

    return all_of(build, changed(to, f'^name: "{name}"', f'name: "{to}"'))


def _consumer(name: str, more: str = "") -> Build:
    """A model that takes as many seconds as its input says."""
    return all_of(
        python("ground_truth"),
        _is_called("ground_truth", name),
        edited(name, "max_batch_size: 64", "max_batch_size: 1"),
        extended(name, more),
    )


def _producer(name: str, more: str = "") -> Build:
    return all_of(
        stored(_MODELS, "decoupled_producer"),
        _is_called("decoupled_producer", name),
        extended(name, more),
    )


def _two_steps(name: str, old: str, new: str) -> Build:
    return all_of(
        stored(_MODELS, _PLAIN_ENSEMBLE),
        _is_called(_PLAIN_ENSEMBLE, name),
        edited(name, f'"{old}"', f'"{new}"'),
    )


_QUEUES = all_of(
    _two_steps("ensemble_step1_enabled_max_queue_size", "decoupled_producer", "decoupled_producer_enabled_max_queue_size"),
    _two_steps("ensemble_step2_enabled_max_queue_size", "slow_consumer", "slow_consumer_enabled_max_queue_size"),
    _producer("decoupled_producer_enabled_max_queue_size", _QUEUE.format(4)),
    _producer("decoupled_producer"),
    _consumer("slow_consumer"),
    _consumer("slow_consumer_enabled_max_queue_size", _QUEUE.format(4)),
)  # fmt: skip
_EDGE = '{}_map {{ key: "{}" value: "{}" }}'


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    edges = [_EDGE.format("input", *each) for each in inputs.items()]
    edges += [_EDGE.format("output", *each) for each in outputs.items()]
    return f'step {{ model_name: "{model}" model_version: -1 {" ".join(edges)} }}\n'


def _chain(name: str, rows: int, *steps: str, limit: str = "") -> Build:
    return text(
        name,
        f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: {rows}\n'
        'input [ { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] } ]\noutput [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
        f"ensemble_scheduling {{ {limit} {' '.join(steps)} }}\n",
    )


_PARALLEL = all_of(
    _producer("decoupled_producer_parallel_queue"),
    code("decoupled_producer_parallel_queue", "0.5", "2.0"),
    _consumer("slow_consumer_queue_limited", _QUEUE.format(1)),
    _consumer("fast_consumer"),
    code("fast_consumer", "time.sleep(delay)", "time.sleep(0)"),
    python("join_add_sub"),
    _chain(
        "ensemble_parallel_step_failed_enqueue", 0,
        _step("decoupled_producer_parallel_queue", {"IN": "IN"}, {"OUT": "mid"}),
        _step("slow_consumer_queue_limited", {"INPUT0": "mid"}, {"OUTPUT0": "slow"}),
        _step("fast_consumer", {"INPUT0": "mid"}, {"OUTPUT0": "fast"}),
        _step("join_add_sub", {"INPUT0": "slow", "INPUT1": "fast"}, {"OUTPUT0": "OUT"}),
    ),
)  # fmt: skip
_DELAYED = (
    'max_batch_size: 2\ninput [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 1 ] } ]\noutput [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
    "instance_group [ { count: 1 kind: KIND_CPU } ]\ndynamic_batching { preferred_batch_size: [ 2 ] }\n"
)
_SLEEPER = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            given = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", given)]))
            time.sleep({})
        return answers
"""


def _sleeper(name: str, seconds: float) -> Build:
    return text(name, f'name: "{name}"\nbackend: "python"\n{_DELAYED}', _SLEEPER.format(seconds))


def _limited(name: str, limit: str) -> Build:
    return _chain(
        name, 2,
        _step("decoupled_producer", {"IN": "IN"}, {"OUT": "one"}),
        _step("consumer_high_delay", {"INPUT0": "one"}, {"OUTPUT0": "two"}),
        _step("consumer_low_delay", {"INPUT0": "two"}, {"OUTPUT0": "OUT"}),
        limit=limit,
    )  # fmt: skip


_LIMITS = all_of(
    _producer("decoupled_producer"),
    edited("decoupled_producer", "max_batch_size: 1", "max_batch_size: 2"),
    _sleeper("consumer_high_delay", 0.5),
    _sleeper("consumer_low_delay", 0.1),
    _limited("ensemble_disabled", ""),
    _limited("ensemble_limit_1", "max_inflight_requests: 1"),
    _limited("ensemble_limit_4", "max_inflight_requests: 4"),
)

ENSEMBLES = (
    Suite("ensembles: simple", "L0_simple_ensemble/ensemble_test.py",
          all_of(examples("simple"), second("simple"), stored("L0_simple_ensemble/models")), ("--log-level", "debug"), own_server=True, issue=6),
    Suite("ensembles: queues", _BACKPRESSURE, _QUEUES, only=("EnsembleStepMaxQueueSizeTest.*",), issue=6),
    Suite("ensembles: parallel", _BACKPRESSURE, _PARALLEL, only=("EnsembleParallelFailedEnqueueTest.*",), issue=6),
    Suite("ensembles: limits", _BACKPRESSURE, _LIMITS, only=("EnsembleBackpressureTest.*",), timeout_s=800, issue=6),
    _decoupled("one_to_none", 300),
    _decoupled("one_to_one", 600),
    _decoupled("one_to_many", 1800),
    _decoupled("one_to_multi_many", 1, skips={"*": "asks for a delay inside Triton's gRPC front end"}),
    _decoupled("no_streaming", 60),
    _decoupled("response_order", 1200),
    _decoupled("wrong_shape", 60),
    Suite("decoupled: not decoupled", _DECOUPLED, all_of(_REPEAT, edited("repeat_int32", "decoupled: True", "decoupled: False")),
          only=("NonDecoupledTest.*",), issue=6),
)  # fmt: skip
