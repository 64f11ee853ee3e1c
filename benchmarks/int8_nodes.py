"""Products of quantized models beside the same nodes in f32: `python -m benchmarks.int8_nodes`.

Both models run in turns with a clock in them; nodes are matched by name. Prints the nodes that are
slower in 8 bits, and how many there are of each kernel family.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from benchmarks.models import Feeds
from benchmarks.quantized import QUANTIZED
from tuili.bench.clocked import ClockedModel
from tuili.bench.feeds import random_feeds
from tuili.bench.tune.rounds import best_times
from tuili.bench.tune.tuner import by_node, timed
from tuili.compiler import Options, generate
from tuili.importers.onnx import import_model

PRODUCTS = ("Conv", "MatMul", "QConv", "QMatMul")


def main() -> None:
    """Measure the models named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet50_qdq", "efficientnet_lite0_qdq"])
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    for name in options.models:
        quantized = QUANTIZED[name]
        feeds = quantized.model.inputs(quantized.model.sizes[0])
        pair = [_clocked(path, feeds) for path in (quantized.model.path(), quantized.path())]
        best = best_times([timed(model) for model in pair], options.seconds)
        real, codes = (_products(m, by_node(m, ns)) for m, ns in zip(pair, best, strict=True))
        _tell(name, real, codes)


def _clocked(path: Path, feeds: Feeds) -> ClockedModel:
    shapes = {name: value.shape for name, value in feeds.items()}
    options = Options(shapes=shapes)
    compiled = generate(import_model(path), options, timed=True)
    return ClockedModel(compiled, options, random_feeds(compiled.program.inputs))


def _products(model: ClockedModel, times: dict[str, int]) -> dict[str, tuple[str, int]]:
    """By node name: the kernel family, and nanoseconds."""
    families = model.compiled.program.families
    return {
        label.split("'")[1]: (families[label][0], ns)
        for label, ns in times.items()
        if label.split()[0] in PRODUCTS
    }


def _tell(name: str, real: dict[str, tuple[str, int]], codes: dict[str, tuple[str, int]]) -> None:
    both = [node for node in real if node in codes]
    slower = [node for node in both if codes[node][1] > real[node][1]]
    for node in slower:
        (family, before), (other, now) = real[node], codes[node]
        print(f"  {node}: {family} {before / 1e3:.1f} us, {other} {now / 1e3:.1f} us")
    found = Counter(codes[node][0] for node in both)
    late = Counter(codes[node][0] for node in slower)
    counts = ", ".join(f"{family} {late[family]} of {count}" for family, count in found.items())
    print(f"{name}: slower than f32: {counts}", flush=True)


if __name__ == "__main__":
    main()
