"""Times single convolution kernels: GFLOP/s and percent of this core's measured FMA peak.

python -m benchmarks.kernels_conv [NAME]...
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.single_kernel import SingleKernel, single_node, this_target
from tuili.codegen.targets import TARGETS, Target
from tuili.ir import Graph, Node, TensorType
from tuili.ops.infer import infer
from tuili.tensors import DType

PEAK_C = """
#include <stdint.h>
typedef float vf __attribute__((vector_size(%d)));
double spin(int64_t n, float f)
{
    vf x = f - (vf){0}, y = x * 1e-9f, a[12];
    for (int i = 0; i < 12; i++) a[i] = x + (float)i;
    vf a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4], a5 = a[5];
    vf a6 = a[6], a7 = a[7], a8 = a[8], a9 = a[9], a10 = a[10], a11 = a[11];
#define F(r) r = r * x + y; __asm__ volatile("" : "+x"(r));
    for (int64_t i = 0; i < n; i++) {
        F(a0) F(a1) F(a2) F(a3) F(a4) F(a5) F(a6) F(a7) F(a8) F(a9) F(a10) F(a11)
    }
    a0 += a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
    return a0[0];
}
"""


def measure_peak(target: Target) -> float:
    """GFLOP/s of twelve independent chains of multiply-adds."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
        source.write_text(
            (PEAK_C % (4 * target.lanes)).replace('"+x"', '"+v"' if target.lanes == 16 else '"+x"')
        )
        flags = ["-O2", "-fPIC", "-shared", "-ffp-contract=fast", *target.flags]
        subprocess.run(["gcc", *flags, str(source), "-o", str(library)], check=True)
        spin = ctypes.CDLL(str(library)).spin
        spin.restype = ctypes.c_double
        best = min(
            _time(lambda: spin(ctypes.c_int64(400_000), ctypes.c_float(0.9))) for _ in range(40)
        )
    return 400_000 * 12 * 2 * target.lanes / best / 1e9


def _time(function) -> float:  # type: ignore[no-untyped-def]
    start = time.thread_time()  # of this thread: others may use the machine
    function()
    return time.thread_time() - start


@dataclass(frozen=True)
class Case:
    """One convolution of a known network."""

    net: str
    channels: int
    size: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    group: int = 1

    @property
    def label(self) -> str:
        """One line of the table."""
        group = f" g{self.group}" if self.group > 1 else ""
        window = f"{self.kernel}x{self.kernel} s{self.stride}"
        shape = f"{self.channels:4}x{self.size}x{self.size}"
        return f"{self.net:9} {window} {shape} -> {self.outputs:4}{group}"


# channels, size, outputs, kernel, stride; `g` is depthwise.
NETS = {
    "resnet50": """
        3 224 64 7 2,     64 56 64 1 1,     64 56 64 3 1,     64 56 256 1 1,    256 56 64 1 1,
        256 56 128 1 1,   128 56 128 3 2,   128 28 512 1 1,   256 56 512 1 2,   512 28 128 1 1,
        128 28 128 3 1,   512 28 256 1 1,   256 28 256 3 2,   256 14 1024 1 1,  512 28 1024 1 2,
        1024 14 256 1 1,  256 14 256 3 1,   1024 14 512 1 1,  512 14 512 3 2,   512 7 2048 1 1,
        1024 14 2048 1 2, 2048 7 512 1 1,   512 7 512 3 1
    """,
    "efflite0": """
        3 224 32 3 2,     32 112 g 3 1,     32 112 16 1 1,    16 112 96 1 1,    96 112 g 3 2,
        96 56 24 1 1,     24 56 144 1 1,    144 56 g 3 1,     144 56 24 1 1,    144 56 g 5 2,
        144 28 40 1 1,    40 28 240 1 1,    240 28 g 5 1,     240 28 g 3 2,     240 14 80 1 1,
        80 14 480 1 1,    480 14 g 5 1,     480 14 112 1 1,   112 14 672 1 1,   672 14 g 5 2,
        672 7 192 1 1,    192 7 1152 1 1,   1152 7 g 5 1,     1152 7 320 1 1,   320 7 1280 1 1
    """,
    "det": """
        3 640 16 3 2,     16 320 16 1 1,    16 320 g 3 1,     32 320 g 3 2,     24 160 96 1 1,
        96 160 24 3 1,    96 160 96 3 1,    96 80 24 3 1,     96 40 24 3 1,     192 40 192 1 1,
        384 20 384 1 1,   192 40 g 5 1
    """,
    "squeeze": "96 1 24 1 1, 512 1 128 1 1, 1024 1 256 1 1",
}


def _case(net: str, text: str) -> Case:
    channels, size, outputs, kernel, stride = text.split()
    group = int(channels) if outputs == "g" else 1
    many = int(channels) if outputs == "g" else int(outputs)
    return Case(net, int(channels), int(size), many, int(kernel), int(stride), group)


CASES = [_case(net, text) for net, cases in NETS.items() for text in cases.split(",")]


def conv_node(case: Case, target: Target) -> Node:
    """The convolution with random weights, blocked as a compiler would have it."""
    rng = np.random.default_rng(1)
    graph = Graph()
    layout = "" if case.channels <= 4 and case.group == 1 else target.layout
    shape = (1, case.channels, case.size, case.size)
    x = graph.add_input("x", TensorType(DType.F32, shape, layout))
    fan = case.channels // case.group * case.kernel**2
    weights = rng.standard_normal(
        (case.outputs, case.channels // case.group, case.kernel, case.kernel)
    )
    w = graph.add_constant((weights / fan**0.5).astype(np.float32), "w")
    b = graph.add_constant(rng.standard_normal(case.outputs).astype(np.float32), "b")
    pad = case.kernel // 2
    body = Graph()
    element = body.add_input("e", TensorType(DType.F32, ()))
    body.set_outputs([body.add("Relu", [element], types=[TensorType(DType.F32, ())]).output])
    attrs = {
        "strides": (case.stride,) * 2,
        "pads": (pad,) * 4,
        "group": case.group,
        "epilogue": body,
    }
    graph.set_outputs([graph.add("Conv", [x, w, b], attrs).output])
    infer(graph)
    node = single_node(graph)
    node.output.type = node.output.tensor.with_layout(target.layout)
    return node


def main() -> None:
    """Print one line per shape."""
    words = sys.argv[1:]
    target = next((TARGETS[word] for word in words if word in TARGETS), this_target())
    exact = "exact" in words
    wanted = [word for word in words if word != "exact" and word not in TARGETS]
    peak = measure_peak(target)
    print(f"{target.name}: FMA peak {peak:.1f} GFLOP/s")
    seconds: dict[str, float] = {}
    for case in CASES:
        if wanted and not any(word in case.label for word in wanted):
            continue
        node = conv_node(case, target)
        start = time.perf_counter()
        kernel = SingleKernel(node, target, exact=exact)
        built = time.perf_counter() - start
        x = np.random.default_rng(2).standard_normal(node.required(0).shape).astype(np.float32)
        kernel.bind({"x": x})
        best = 1e9
        until = time.perf_counter() + 0.25
        while time.perf_counter() < until:
            best = min(best, _time(kernel.call))
        out = node.output.shape
        flops = 2 * int(np.prod(out)) * case.channels // case.group * case.kernel**2
        rate = flops / best / 1e9
        seconds[case.net] = seconds.get(case.net, 0) + best
        speed = f"{best * 1e3:8.3f} ms {rate:7.1f} GFLOP/s {100 * rate / peak:5.1f} %"
        print(f"{case.label:44} {kernel.family:12} {speed}  built {built:.2f} s", flush=True)
    print({net: f"{total * 1e3:.2f} ms" for net, total in seconds.items()})


if __name__ == "__main__":
    main()
