"""What a configuration gets from the model where it says nothing."""

from pathlib import Path

import pytest

from tuili.errors import InvalidModel
from tuili.server.loading.completion import complete, complete_ensemble, declared_specs
from tuili.server.repository.config import from_json
from tuili.server.repository.source import Source
from tuili.tensors import DType, Sym, TensorSpec

N, M = Sym("N"), Sym("M")


def derived(config, *shapes):
    """Dims and reshapes as the configuration shows them, and shapes as the metadata does."""
    specs = [TensorSpec(f"t{at}", DType.F32, shape) for at, shape in enumerate(shapes)]
    found = complete(from_json("m", config, Source("")), "tuili", specs[:1], specs[1:], Path())
    entries = [*found.json["input"], *found.json["output"]]
    shown = [(tuple(e["dims"]), (e.get("reshape") or {}).get("shape")) for e in entries]
    return found.json["max_batch_size"], shown


@pytest.mark.parametrize(
    ("shapes", "limit", "shown"),
    [
        ([(N, 4), (N, 2)], 128, [((4,), None), ((2,), None)]),
        ([(N, M), (N, 2)], 128, [((-1,), None), ((2,), None)]),
        # One number a row: its clients do not expect empty dims beside a batch dim.
        ([(N, 64), (N,)], 128, [((64,), None), ((1,), [])]),
        ([(N,), (N,)], 128, [((1,), []), ((1,), [])]),
        ([(3, 4), ()], 0, [((3, 4), None), ((), None)]),
        ([(N, 4), (M, 4)], 0, [((-1, 4), None), ((-1, 4), None)]),
    ],
)
def test_dims_are_what_triton_would_have_derived(shapes, limit, shown):
    assert derived({}, *shapes) == (limit, shown)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ({}, ("TYPE_FP32", [-1, 4])),
        ({"data_type": "TYPE_FP32"}, ("TYPE_FP32", [-1, 4])),
        ({"dims": [-1, 4]}, ("TYPE_FP32", [-1, 4])),
        ({"dims": [2, 4]}, ("TYPE_FP32", [2, 4])),
        ({"data_type": "TYPE_INVALID", "dims": []}, ("TYPE_FP32", [-1, 4])),
    ],
)
def test_what_is_not_said_of_a_tensor_is_the_models_own(written, shown):
    specs = [TensorSpec(name, DType.F32, (N, M, 4)) for name in "xy"]
    raw = {"max_batch_size": 8} | {
        role: [{"name": name} | written] for role, name in (("input", "x"), ("output", "y"))
    }
    found = complete(from_json("m", raw, Source("")), "tuili", specs[:1], specs[1:], Path())
    for role, rules in (("input", found.signature.inputs), ("output", found.signature.outputs)):
        (entry,), (rule,) = found.json[role], rules.values()
        assert (entry["data_type"], entry["dims"]) == shown
        assert (rule.datatype, list(rule.dims)) == ("FP32", shown[1])


def test_a_model_that_does_not_tell_its_datatypes_needs_them_written():
    config = from_json("m", {"input": [{"name": "x", "dims": [1]}]}, Source(""))
    assert declared_specs(config.inputs, 0) == ()
    with pytest.raises(InvalidModel, match="'x' needs a data_type in the configuration"):
        complete(config, "python", (), (), Path())
    with pytest.raises(InvalidModel, match="'x' needs a data_type in the configuration"):
        complete_ensemble(config)
