"""Times tuili beside onnxruntime on models of a single operator: `make bench-operators`.

    python -m benchmarks.operators               all of `operator_cases`, slowest first
    python -m benchmarks.operators Conv Cast     those whose operator is named

Interleaved rounds, one thread, known sizes; answers are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks.fetch import cache_dir
from benchmarks.operator_cases import CASES, OperatorCase
from tuili.bench.engines import Settings
from tuili.bench.report import record
from tuili.bench.rounds import OWN, Comparison, compare
from tuili.tensors import Array, DType

OPSET, IR_VERSION = 21, 12
NEWER = {
    "Attention": 23,
    "RMSNormalization": 23,
    "RotaryEmbedding": 23,
    "TensorScatter": 24,
    "Swish": 24,
}


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of an operator: what it holds, and whether it is part of the model."""

    array: Array
    constant: bool


def operand(word: str, rng: np.random.Generator) -> Operand | None:
    """What a word of a row stands for."""
    if word == "-":
        return None
    if word[0] in "[(":
        numbers = word[1:-1].split(",")
        kind = np.float32 if "." in word else np.int64
        listed = np.array([float(number) for number in numbers], kind)
        return Operand(listed if word[0] == "[" else listed.reshape(()), True)
    text = word.removeprefix("=")
    kind, _, dims = text.rpartition(":")
    name, _, limit = (kind or "f32").partition("<")
    shape = [int(dim) for dim in dims.split("x") if dim]
    return Operand(_filled(DType(name), shape, limit, rng), word != text)


def _filled(dtype: DType, shape: list[int], limit: str, rng: np.random.Generator) -> Array:
    if dtype.is_float and not limit:
        return rng.standard_normal(shape).astype(dtype.numpy)
    drawn = rng.random(shape) if dtype.is_float else rng.integers(0, int(limit or 2), shape)
    return np.asarray(drawn * (float(limit) if dtype.is_float else 1)).astype(dtype.numpy)


def build(row: OperatorCase) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model of a row and the inputs that it is fed."""
    rng = np.random.default_rng(0)
    op, _, count = row.op.partition("/")
    operands = [operand(word, rng) for word in row.inputs.split()]
    names = ["" if each is None else f"x{index}" for index, each in enumerate(operands)]
    given = [(name, each) for name, each in zip(names, operands, strict=True) if each is not None]
    fed = {name: each.array for name, each in given if not each.constant}
    outputs = [f"y{index}" for index in range(int(count or 1))]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **row.attrs)],
        op,
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in fed.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        [numpy_helper.from_array(each.array, name) for name, each in given if each.constant],
    )
    opsets = [helper.make_opsetid("", NEWER.get(op, OPSET))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return onnx.shape_inference.infer_shapes(model, data_prop=True), fed


def measured(row: OperatorCase, rounds: int) -> Comparison:
    """Both engines on one row."""
    model, feeds = build(row)
    folder = cache_dir() / "operators"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256(row.name.encode()).hexdigest()[:16]}.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        return compare(path, feeds, (OWN, "onnxruntime"), Settings(1), rounds, row.name)
    except Exception as error:  # noqa: BLE001 - while it runs; onnxruntime's have no other base
        return Comparison(row.name, {}, [], {OWN: str(error), "onnxruntime": str(error)})


def slowest_first(comparisons: list[Comparison]) -> list[Comparison]:
    """By the ratio; those without one, which tell what is not supported, come last."""
    return sorted(comparisons, key=lambda each: each.ratio or math.inf)


def table(comparisons: list[Comparison]) -> Table:
    """Milliseconds, the ratio and the difference of every row."""
    grid = Table(title="one operator, one thread: median ms", title_justify="left")
    for name in ("operator", "tuili", "onnxruntime", "ratio", "difference"):
        grid.add_column(name, justify="left" if name == "operator" else "right")
    for each in comparisons:
        grid.add_row(each.model, *_cells(each))
    return grid


def _cells(comparison: Comparison) -> Iterator[str]:
    timings = {timing.engine: timing for timing in comparison.timings}
    for engine in (OWN, "onnxruntime"):
        timing = timings.get(engine)
        yield f"{timing.median_ms:.3g}" if timing else comparison.failures.get(engine, "-")[:60]
    yield f"{comparison.ratio:.2f}" if comparison.ratio else "-"
    own = timings.get(OWN)
    yield f"{own.difference:.0e}" if own else "-"


def brief(comparison: Comparison) -> dict[str, Any]:
    """What is kept of a row."""
    own = next((each for each in comparison.timings if each.engine == OWN), None)
    return {
        "operator": comparison.model,
        "ms": {each.engine: round(each.median_ms, 4) for each in comparison.timings},
        "ratio": comparison.ratio and round(comparison.ratio, 3),
        "difference": own and own.difference,
        **({"failures": comparison.failures} if comparison.failures else {}),
    }


def main() -> None:
    """Print the table; write it to `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operators", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=cache_dir() / "operators.json")
    options = parser.parse_args()
    rows = [
        row
        for row in CASES
        if not options.operators or row.op.partition("/")[0] in options.operators
    ]
    console = Console(width=170, log_path=False)
    found: list[Comparison] = []
    for row in rows:
        found.append(measured(row, options.rounds))
        console.log(row.name, *_cells(found[-1]), markup=False)
    found = slowest_first(found)
    console.print(table(found))
    report = {**record(found, Settings(1)), "comparisons": [brief(each) for each in found]}
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
