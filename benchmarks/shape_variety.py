"""Memory over the variety of shapes: resident memory after the largest shape, then after many.

python -m benchmarks.shape_variety                 10,000 random shapes of a model with late sizes
python -m benchmarks.shape_variety --count 500     fewer

Both are read twice: as they are, and after the C library gave back what had been freed, whose
amount varies from run to run. Fails when the second one, the memory that is held, is more than 1.1
times that after the largest shape.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import parser

import tuili
from tuili.runtime import Model

LARGEST = (600, 500)
ALLOWED = 1.1

# Planned memory, memory of sizes that data decides, and a loop whose state grows.
TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[a, b] x, int64 rounds) => (float[a, b] y, int64[2, k] where, float[m, b] grown) {
    s = Softmax(x)
    t = Transpose(s)
    z = MatMul(s, t)
    u = MatMul(z, x)
    y = Tanh(u)
    where = NonZero(y)
    grown = Loop<body = f (int64 i, bool go, float[w, b] v) => (bool more, float[w2, b] n) {
        more = Identity(go)
        n = Concat<axis = 0>(v, x)
    }>(rounds, , y)
}"""


def resident_bytes() -> int:
    """The resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("no VmRSS in /proc/self/status: this needs Linux")


def held_bytes() -> int:
    """The resident memory without what the C library keeps for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)
    return resident_bytes()


def run_shape(model: Model, shape: tuple[int, int], rounds: int) -> None:
    """One run; its results are dropped."""
    model.run({"x": np.ones(shape, np.float32), "rounds": np.array(rounds)})


def measure(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """(resident, held) bytes after the largest shape, and after `count` random ones."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="tuili-shapes-") as folder:
        artifact = tuili.compile(parser.parse_model(TEXT), Path(folder) / "m.tuili")
        model = tuili.load(artifact.path, threads=1)
        for _ in range(3):
            run_shape(model, LARGEST, 3)
        largest = resident_bytes(), held_bytes()
        most = np.array(LARGEST)
        for _ in range(count):
            # Small ones mostly, as the logarithm of sizes is even: a run of them is short.
            rows, columns = np.exp(rng.random(2) * np.log(most)).astype(int)
            run_shape(model, (int(rows), int(columns)), int(rng.integers(4)))
        return [largest, (resident_bytes(), held_bytes())]


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    count = options.parse_args().count
    largest, after = measure(count)
    for kind, before, now in zip(("resident", "held"), largest, after, strict=True):
        print(
            f"{kind}: {before / 2**20:.1f} MiB after the largest shape {LARGEST}, "
            f"{now / 2**20:.1f} MiB after {count} random shapes: {now / before:.3f} times"
        )
    return 0 if after[1] <= ALLOWED * largest[1] else 1


if __name__ == "__main__":
    sys.exit(main())
