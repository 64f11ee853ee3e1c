"""Model configurations: what is checked, what is derived."""

import pytest

from tuili.errors import InvalidModel
from tuili.server.repository.config import VersionPolicy, from_json, read
from tuili.server.repository.source import Source
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy


def config(**raw):
    return from_json("m", raw, Source("config.pbtxt"))


def test_nothing_written_leaves_all_to_the_model():
    found = config()
    assert (found.max_batch_size, found.policy, found.instances) == (None, None, 1)


def test_listed_inputs_without_a_batch_size_have_no_batch_dim():
    found = config(input=[{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}])
    assert found.max_batch_size == 0


def test_a_batch_size_alone_does_not_merge_requests():
    assert config(max_batch_size=8).policy == BatchPolicy(max_rows=8, merge=False)


def test_dynamic_batching():
    found = config(
        max_batch_size=8,
        dynamic_batching={
            "preferred_batch_size": [8, 4],
            "max_queue_delay_microseconds": 100,
            "priority_levels": 2,
            "default_priority_level": 2,
            "default_queue_policy": {"max_queue_size": 3, "timeout_action": "DELAY"},
            "priority_queue_policy": {"1": {"default_timeout_microseconds": 5000}},
        },
    )
    assert found.policy == BatchPolicy(
        max_rows=8,
        merge=True,
        preferred_rows=(4, 8),
        max_delay_s=100e-6,
        priority_levels=2,
        default_level=2,
        level=LevelPolicy(max_queue_size=3, on_timeout="delay"),
        levels={1: LevelPolicy(timeout_s=5e-3)},
    )


@pytest.mark.parametrize(
    ("raw", "backend"),
    [
        ({"backend": "identity"}, "identity"),
        ({"platform": "onnxruntime_onnx"}, "onnxruntime"),
        ({"platform": "ensemble"}, "ensemble"),
        ({}, ""),
    ],
)
def test_backend(raw, backend):
    assert config(**raw).backend == backend


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"name": "other"}, "is of model 'other', but its folder is 'm'"),
        ({"max_batch_size": -1}, "max_batch_size must be at least 0, got -1"),
        ({"input": [{"data_type": "TYPE_FP32"}]}, "an input or output has no name"),
        ({"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [0]}]}, "must be positive or"),
        ({"instance_group": [{"count": -1}]}, "instance_group count must be at least 1"),
        ({"version_policy": {"latest": {"num_versions": 0}}}, "num_versions must be at least 1"),
        ({"version_policy": {"specific": {}}}, "needs at least one version"),
        ({"dynamic_batching": {"priority_queue_policy": {"high": {}}}},
         "a priority level is a whole number, got 'high'"),
        ({"max_batch_size": 4, "dynamic_batching": {"preferred_batch_size": [8]}},
         r"preferred sizes must be in 1..max_batch_size \(4\), got \[8\]"),
        ({"dynamic_batching": {"priority_levels": 2}}, "level must be in 1..2, got 0"),
        ({"dynamic_batching": {"priority_levels": 2, "default_priority_level": 1,
                               "priority_queue_policy": {"3": {}}}},
         "a priority level must be in 1..2, got 3"),
        ({"default_model_filename": "../../x"}, "must be the name of a file, without a path"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_meant(raw, text):
    with pytest.raises(InvalidModel, match=text):
        config(**raw)


@pytest.mark.parametrize(
    ("groups", "count"),
    [([{}], 1), ([{"count": 0}], 1), ([{"count": 2}, {}], 3), ([{"count": 2, "passive": True}], 1)],
)
def test_a_group_without_a_count_is_one_instance(groups, count):
    assert config(instance_group=groups).instances == count


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (VersionPolicy(), [7]),
        (VersionPolicy(latest=2), [3, 7]),
        (VersionPolicy(all=True), [1, 3, 7]),
        (VersionPolicy(specific=(1, 7, 9)), [1, 7]),
    ],
)
def test_version_policies(policy, found):
    assert policy.select([3, 1, 7]) == found


def test_an_error_in_the_file_names_the_file(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.pbtxt").write_text("nme: 'x'")
    with pytest.raises(
        InvalidModel, match=r"config.pbtxt: line 1, column 1: .* Did you mean 'name'"
    ):
        read(folder)
