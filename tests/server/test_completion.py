"""What a configuration gets from the model where it says nothing."""

from pathlib import Path

import pytest

from tuili.server.loading.completion import complete
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
