"""Hand-written models that follow the native ABI, so that tests need no compiler of graphs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tuili.artifact import Artifact, CodeFile, Contents, write_artifact
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.runtime.native import abi_header, pool_source, run_support
from tuili.tensors import Array, DType, TensorSpec, parse_shape, symbols_of

MACHINE = platform.machine()

# y = 2 * x with one arena buffer, shared among threads in two steps with a barrier between.
TWICE = """
TL_EXPORT int64_t tuili_num_offsets(void) { return 1; }

TL_EXPORT int64_t tuili_plan(tl_run *run)
{
    const int64_t sizes[] = {run->dims[0] * 3 * 4};
    static const int32_t first[] = {0}, last[] = {1};
    return tl_plan_arena(1, sizes, first, last, run->offsets);
}

typedef struct { tl_run *run; tl_barrier barrier; } shared_t;

static void body(void *arg, int32_t tid, int32_t n)
{
    shared_t *shared = arg;
    tl_run *run = shared->run;
    const float *x = run->inputs[0];
    float *t = (float *)(run->arena + run->offsets[0]), *y = run->outputs[0];
    const int64_t count = run->dims[0] * 3;
    tl_span span = tl_split(count, tid, n);
    for (int64_t i = span.begin; i < span.end; i++) t[count - 1 - i] = x[i];
    tl_barrier_wait(&shared->barrier, n);
    for (int64_t i = span.begin; i < span.end; i++) y[i] = 2 * t[count - 1 - i];
}

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    shared_t shared = {.run = run};
    if (run->threads > 1) run->pool->parallel(run->pool, run->threads, body, &shared);
    else body(&shared, 0, 1);
    return 0;
}
"""

# y = the elements of x above zero; negative dims[1] from the caller means "not found yet".
POSITIVES = """
TL_EXPORT int64_t tuili_num_offsets(void) { return 0; }
TL_EXPORT int64_t tuili_plan(tl_run *run) { (void)run; return 0; }

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    const float *x = run->inputs[0];
    if (run->outputs[0] || run->dims[1] != -1) {
        snprintf(run->error, (size_t)run->error_size, "stale state");
        return 1;
    }
    float *y = malloc((size_t)(run->dims[0] + 1) * sizeof *y);
    int64_t count = 0;
    run->outputs[0] = y;
    for (int64_t i = 0; i < run->dims[0]; i++) {
        if (x[i] != x[i]) {
            snprintf(run->error, (size_t)run->error_size, "node 'f': element %d is NaN", (int)i);
            return 2;
        }
        if (x[i] > 0) y[count++] = x[i];
    }
    run->dims[1] = count;
    return 0;
}
"""

# y = x + w, and a plan that may fail.
ADD_WEIGHT = """
TL_EXPORT int64_t tuili_num_offsets(void) { return 0; }

TL_EXPORT int64_t tuili_plan(tl_run *run)
{
    if (run->dims[0] == 13) {
        snprintf(run->error, (size_t)run->error_size, "13 is not for us");
        return -1;
    }
    return run->dims[0] > 1000000 ? INT64_MAX / 4 : 0;
}

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    const int64_t *x = run->inputs[0], *w = (const int64_t *)run->weights;
    int64_t *y = run->outputs[0];
    for (int64_t i = 0; i < run->dims[0]; i++) y[i] = x[i] + w[8];
    return 0;
}
"""

# y = x, for elements of ITEM_BYTES bytes.
COPY = """
TL_EXPORT int64_t tuili_num_offsets(void) { return 0; }
TL_EXPORT int64_t tuili_plan(tl_run *run) { (void)run; return 0; }

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    memcpy(run->outputs[0], run->inputs[0], (size_t)run->dims[0] * ITEM_BYTES);
    return 0;
}
"""


def build_library(source: str, output: Path, flags: Sequence[str] = ()) -> Path:
    """The shared library of a run function."""
    text = f"{abi_header()}\n{pool_source()}\n{run_support()}\n{source}"
    return Toolchain.find().build([Unit("run", text, tuple(flags))], output)


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, DType.parse(dtype), parse_shape(shape))


def contents(
    library: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: Sequence[tuple[int, Array]] = (),
) -> Contents:
    """What `write_artifact` takes, for one library that runs on this machine."""
    dims = [dim for tensor in (*inputs, *outputs) for dim in tensor.shape]
    symbols = dict.fromkeys(name for dim in dims for name in sorted(symbols_of(dim)))
    return Contents(
        name="toy",
        producer="tuili 0.0",
        inputs=inputs,
        outputs=outputs,
        symbols=list(symbols),
        code=[CodeFile(library, "baseline", (), MACHINE)],
        weights=weights,
    )


def twice(folder: Path, *, single_file: bool = False) -> Artifact:
    """y[N, 3] = 2 * x[N, 3]."""
    library = build_library(TWICE, folder / "twice.so")
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N", 3)])
    return write_artifact(made, folder / "twice.tuili", single_file=single_file)


def positives(folder: Path) -> Artifact:
    """y[K] = the elements of x[N] above zero."""
    library = build_library(POSITIVES, folder / "positives.so")
    made = contents(library, [spec("x", "f32", "N")], [spec("y", "f32", "K")])
    return write_artifact(made, folder / "positives.tuili")


def add_weight(folder: Path, weight: int = 7, *, single_file: bool = False) -> Artifact:
    """y[N] = x[N] + weight; dims of 13 and of more than a million have no plan."""
    library = build_library(ADD_WEIGHT, folder / "add.so")
    weights = [(0, np.zeros(3, np.float32)), (64, np.array([weight], np.int64))]
    made = contents(library, [spec("x", "i64", "N")], [spec("y", "i64", "N")], weights)
    return write_artifact(replace(made, name="add"), folder / "add.tuili", single_file=single_file)
