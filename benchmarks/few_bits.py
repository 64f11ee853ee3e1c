"""Products with weights of a few bits, engines turn about: `python -m benchmarks.few_bits`.

One MatMulNBits of drawn weights to a file, for numbers of rows from one (a language model that
writes) to many (one that reads), with activations in f32 (level 0) and in 8 bits (level 4).
`--bits 16` and `--bits 32` are MatMul with weights that float16 can hold, and with others.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tuili.bench.engines import Settings
from tuili.bench.rounds import OWN, compare

_FLOATS = 16  # bits from which weights are floats
ENGINES = ("tuili", "onnxruntime", "openvino")


def main() -> None:
    """Measure every combination of what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 128])
    parser.add_argument("--sizes", type=int, nargs="*", default=[1024, 2048, 4096])
    parser.add_argument("--levels", type=int, nargs="*", default=[0, 4])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES))
    options = parser.parse_args()
    print(
        f"{options.bits} bits, blocks of {options.block}, {options.threads} threads, medians in ms"
    )
    with tempfile.TemporaryDirectory(prefix="tuili-few-bits-") as folder:
        for level in options.levels:
            for size in options.sizes:
                path = Path(folder) / f"{size}_{level}.onnx"
                onnx.save(product(size, options.bits, options.block, level), path)
                for rows in options.rows:
                    _measure(path, rows, size, level, options)


def _measure(path: Path, rows: int, size: int, level: int, options: argparse.Namespace) -> None:
    x = np.random.default_rng(1).standard_normal((rows, size)).astype(np.float32)
    settings = Settings(options.threads)
    found = compare(path, {"x": x}, options.engines, settings, options.rounds)
    times = {timing.engine: timing.median_ms for timing in found.timings}
    shown = ", ".join(f"{engine} {ms:.3f}" for engine, ms in times.items())
    own = times.get(OWN)
    ratios = ", ".join(
        f"{own / ms:.2f} of {engine}" for engine, ms in times.items() if own and engine != OWN
    )
    print(f"level {level}, {rows} x {size} by {size} x {size}: {shown}: {ratios}", flush=True)
    for engine, why in found.failures.items():
        print(f"  {engine}: {why.splitlines()[0][:120]}", flush=True)


def product(size: int, bits: int, block: int, level: int) -> onnx.ModelProto:
    """A model of one product."""
    rng = np.random.default_rng(0)
    if bits >= _FLOATS:
        weights = rng.standard_normal((size, size)).astype(np.float16 if bits == _FLOATS else "f4")
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        return _model(node, {"w": weights.astype(np.float32)}, size)
    blocks = -(-size // block)
    arrays = {
        "codes": rng.integers(0, 256, (size, blocks, block * bits // 8)).astype(np.uint8),
        "scales": (rng.uniform(0.5, 1.5, (size, blocks)) / 2**bits).astype(np.float32),
    }
    attrs = {"K": size, "N": size, "bits": bits, "block_size": block, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", *arrays], ["y"], domain="com.microsoft", **attrs)
    return _model(node, arrays, size)


def _model(node: onnx.NodeProto, arrays: dict[str, np.ndarray], size: int) -> onnx.ModelProto:
    edges = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", size]) for name in "xy"
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "product", [edges[0]], [edges[1]], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


if __name__ == "__main__":
    main()
