"""The C of small graphs, as a reader finds it: kernels and the run function, one file a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tuili.codegen.emit import RUN_UNIT, emit
from tuili.codegen.targets import find_target
from tuili.codegen.translate import translate
from tuili.ir.text import parse
from tuili.ops.infer import infer
from tuili.passes.pipeline import optimise

GRAPHS = {
    "elementwise": """
graph main(%x: f32[N, 8], %y: f32[8]) {
  %a = Add(%x, %y)
  %b = Sigmoid(%a)
  return %b
}""",
    "softmax": "graph main(%x: f32[N, 20]) {\n %y = Softmax(%x) {axis=-1}\n return %y\n}",
    "layer_norm": """
graph main(%x: f32[N, 24], %s: f32[24], %b: f32[24]) {
  %y = LayerNormalization(%x, %s, %b) {axis=-1}
  return %y
}""",
    "transpose": "graph main(%x: f32[6, 40]) {\n %y = Transpose(%x) {perm=[1, 0]}\n return %y\n}",
    "matmul": """
graph main(%x: f32[3, 4]) {
  %w = constant f32[4, 2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %b = constant f32[2] [0.5, 0.25]
  %m = MatMul(%x, %w)
  %a = Add(%m, %b)
  %y = Relu(%a)
  return %y
}""",
    "matmul_codes": """
graph main(%x: f32[9, 4]) {
  %w = constant u8[2, 1, 2] [16, 50, 84, 118]
  %s = constant f32[2, 1] [0.5, 0.25]
  %y = com.microsoft::MatMulNBits(%x, %w, %s) {K=4, N=2, bits=4, block_size=4}
  return %y
}""",
    "matmul_dots": """
graph main(%x: f32[1, 16]) {
  %w = constant u8[1, 1, 8] [16, 50, 84, 118, 1, 2, 3, 4]
  %s = constant f32[1, 1] [0.5]
  %y = com.microsoft::MatMulNBits(%x, %w, %s) {K=16, N=1, accuracy_level=4, bits=4, block_size=16}
  return %y
}""",
    "convolution": """
graph main(%x: f32[1, 2, 4, 4]) {
  %w = constant f32[2, 2, 1, 1] [1.0, 2.0, 3.0, 4.0]
  %c = Conv(%x, %w)
  %y = Relu(%c)
  return %y
}""",
    "qmatmul_amx": f"""
graph main(%x: u8[40, 32]) {{
  %w = constant i8[32, 16] [{", ".join(str(i % 7 - 3) for i in range(512))}]
  %y = QMatMul(%x, %w)
  return %y
}}""",
    "branch": """
graph main(%c: bool[], %x: f32[4]) {
  %y = If(%c) {else_branch=graph no() {
    %n = Neg(%x)
    return %n
  }, then_branch=graph yes() {
    %r = Relu(%x)
    return %r
  }}
  return %y
}""",
}


TARGETS = {"qmatmul_amx": "x86-64-amx"}  # x86-64-avx512 where nothing is said


def printed(name: str) -> str:
    """The kernels and the run function, without what every library repeats."""
    graph = parse(GRAPHS[name])
    target = find_target(TARGETS.get(name, "x86-64-avx512"))
    infer(graph)
    optimise(graph, block=target.block, on_pass=lambda name, graph: None)
    units = emit(translate(graph, infer(graph), target), target).units
    kernels = [unit.shown for unit in units if unit.name != RUN_UNIT]
    (run,) = (unit.shown for unit in units if unit.name == RUN_UNIT)
    return "\n".join([*kernels, run[run.index("static void tl_body") :]])


@pytest.mark.parametrize("name", GRAPHS)
def test_generated_c(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.c", printed(name))
