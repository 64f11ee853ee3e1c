"""Nodes that the host runs: native code calls back, from several threads, and carries errors."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.native_models import build_library, contents, spec
from tuili.artifact import Artifact, write_artifact
from tuili.errors import InvalidArgument, Unsupported
from tuili.runtime import HOST_FUNCTION, load, write_error

# y[K] = what the host makes of x[N]: one call to compute, which finds K, one to copy.
ASK_HOST = """
TL_EXPORT int64_t tuili_num_offsets(void) { return 0; }
TL_EXPORT int64_t tuili_plan(tl_run *run) { (void)run; return 0; }

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    const void *inputs[] = {run->inputs[0]};
    if (run->host(run->host_context, 0, inputs, NULL, run->dims))
        return 1;
    run->outputs[0] = malloc((size_t)run->dims[1] * 8 + 1);
    void *outputs[] = {run->outputs[0]};
    return run->host(run->host_context, 0, NULL, outputs, run->dims);
}
"""


class Evens:
    """Keeps the even numbers; a negative one is an error."""

    passes_objects = False

    def __init__(self, artifact: Artifact) -> None:
        self.steps = artifact.manifest.host_steps
        self.function = HOST_FUNCTION(self.call)
        self.kept: dict[int, Any] = {}

    def call(self, context: int, step: int, inputs: int, outputs: int, dims: int) -> int:
        sizes = (ctypes.c_int64 * 2).from_address(dims)
        if inputs:
            address = ctypes.c_void_p.from_address(inputs).value or 0
            x = np.array((ctypes.c_int64 * sizes[0]).from_address(address))
            if x.size and x.min() < 0:
                write_error(context, f"step {self.steps[step]}: {x.min()} is negative" + "!" * 5000)
                return 1
            self.kept[context] = x[x % 2 == 0]
            sizes[1] = len(self.kept[context])
        else:
            found = self.kept.pop(context)
            target = ctypes.c_void_p.from_address(outputs).value or 0
            ctypes.memmove(target, found.ctypes.data, found.nbytes)
        return 0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    library = build_library(ASK_HOST, folder / "x.so")
    made = contents(library, [spec("x", "i64", "N")], [spec("y", "i64", "K")])
    return write_artifact(replace(made, host_steps=["evens"]), folder / "x.tuili").path


def test_a_model_that_needs_a_host_says_so(path: Path) -> None:
    with pytest.raises(
        Unsupported, match=r"1 nodes run in Python \(evens\); load it with tuili.load"
    ):
        load(path)


def test_the_host_finds_dims_and_results(path: Path) -> None:
    model = load(path, host=Evens)
    for count in (0, 1, 7):
        assert list(model.run({"x": np.arange(count)})["y"]) == list(range(0, count, 2))


def test_callers_at_once_are_told_apart(path: Path) -> None:
    model = load(path, host=Evens)

    def call(count: int) -> bool:
        return list(model.run({"x": np.arange(count)})["y"]) == list(range(0, count, 2))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(500)))


def test_an_error_of_the_host_is_the_error_of_the_run(path: Path) -> None:
    model = load(path, host=Evens)
    with pytest.raises(InvalidArgument, match=r"the run failed: step evens: -3 is negative!"):
        model.run({"x": np.array([-3])})
    assert list(model.run({"x": np.array([4])})["y"]) == [4]
