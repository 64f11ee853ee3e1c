"""Files that onnxruntime's optimisers saved run natively, and give onnxruntime's answers."""

# ruff: noqa: E501 - networks are tables
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.transformers import optimizer

import tuili
from tuili.compiler import Options, generate
from tuili.errors import UnsupportedOperator
from tuili.importers.onnx import import_model
from tuili.ops.interpret import run
from tuili.tensors import Array

RNG = np.random.default_rng(11)
HEAD = '<ir_version: 8, opset_import: ["": 17]>'

CONVNET = """
convnet (float[N, 3, 32, 32] x) => (float[N, 10] y) {
  c0 = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(x, w0, b0)
  r0 = Relu(c0)
  p0 = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(r0)
  c1 = Conv<pads=[1, 1, 1, 1]>(p0, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1, 1, 1, 1]>(r1, w2, b2)
  s = Add(c2, p0)
  r2 = Relu(s)
  g = GlobalAveragePool(r2)
  c3 = Conv(g, w3, b3)
  gate = Sigmoid(c3)
  m = Mul(r2, gate)
  pieces = Concat<axis=1>(m, r2)
  h = GlobalAveragePool(pieces)
  f = Flatten(h)
  y = Gemm(f, w4, b4)
}
"""
CONV_WEIGHTS = {
    "w0": (32, 3, 3, 3), "b0": (32,), "w1": (32, 32, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "b2": (32,),
    "w3": (32, 32, 1, 1), "b3": (32,), "w4": (64, 10), "b4": (10,),
}  # fmt: skip

NORM = """
  {0}_mean = ReduceMean<axes=[-1]>({1})
  {0}_away = Sub({1}, {0}_mean)
  {0}_square = Pow({0}_away, two)
  {0}_variance = ReduceMean<axes=[-1]>({0}_square)
  {0}_safe = Add({0}_variance, tiny)
  {0}_deviation = Sqrt({0}_safe)
  {0}_normal = Div({0}_away, {0}_deviation)
  {0}_scaled = Mul({0}_normal, {0}_gain)
  {0} = Add({0}_scaled, {0}_shift)
"""
BERT = f"""
bert (int64[B, S] ids, int64[B, S] types, int64[B, S] mask) => (float[B, S, 32] y) {{
  words = Gather(word_table, ids)
  kinds = Gather(type_table, types)
  both = Add(words, kinds)
  shape = Shape(ids)
  length = Gather(shape, one)
  end = Unsqueeze(length, zeros)
  positions = Slice(numbers, zeros, end, ones)
  places = Gather(place_table, positions)
  e = Add(both, places)
  {NORM.format("x0", "e")}
  wide = Unsqueeze(mask, middle)
  real = Cast<to=1>(wide)
  hidden = Sub(unit, real)
  far = Mul(hidden, low)
  q0 = MatMul(x0, wq)  q1 = Add(q0, bq)  q2 = Reshape(q1, heads)  q = Transpose<perm=[0, 2, 1, 3]>(q2)
  k0 = MatMul(x0, wk)  k1 = Add(k0, bk)  k2 = Reshape(k1, heads)  k = Transpose<perm=[0, 2, 3, 1]>(k2)
  v0 = MatMul(x0, wv)  v1 = Add(v0, bv)  v2 = Reshape(v1, heads)  v = Transpose<perm=[0, 2, 1, 3]>(v2)
  s0 = MatMul(q, k)
  s1 = Div(s0, four)
  s2 = Add(s1, far)
  odds = Softmax<axis=-1>(s2)
  a0 = MatMul(odds, v)
  a1 = Transpose<perm=[0, 2, 1, 3]>(a0)
  a2 = Reshape(a1, flat)
  a3 = MatMul(a2, wo)
  a4 = Add(bo, a3)
  a5 = Add(a4, x0)
  {NORM.format("x1", "a5")}
  f0 = MatMul(x1, wi)
  f1 = Add(f0, bi)
  f2 = Div(f1, root)
  f3 = Erf(f2)
  f4 = Add(f3, unit)
  f5 = Mul(f1, f4)
  f6 = Mul(f5, half)
  f7 = MatMul(f6, wf)
  f8 = Add(bf, f7)
  f9 = Add(f8, x1)
  {NORM.format("x2", "f9")}
  y = Identity(x2)
}}
"""
BERT_WEIGHTS = {
    "word_table": (50, 32), "type_table": (2, 32), "place_table": (16, 32),
    **{f"x{layer}_{part}": (32,) for layer in range(3) for part in ("gain", "shift")},
    **{f"w{part}": (32, 32) for part in "qkvo"}, **{f"b{part}": (32,) for part in "qkvof"},
    "wi": (32, 64), "bi": (64,), "wf": (64, 32),
}  # fmt: skip
BERT_NUMBERS = {
    "two": 2.0, "tiny": 1e-12, "unit": 1.0, "low": -10000.0, "four": 4.0, "root": 2**0.5, "half": 0.5,
    "one": 1, "zeros": [0], "ones": [1], "middle": [1, 2], "numbers": [[*range(16)]],
    "heads": [0, 0, 2, 16], "flat": [0, 0, 32],
}  # fmt: skip


def network(
    text: str, weights: Mapping[str, Sequence[int]], numbers: Mapping[str, Any], path: Path
) -> Path:
    model = onnx.parser.parse_model(HEAD + text)
    for name, shape in weights.items():
        array = RNG.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for name, number in numbers.items():
        kind = np.float32 if isinstance(number, float) else np.int64
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, kind), name))
    onnx.save(model, path)
    return path


def saved(source: Path, level: str) -> Path:
    """The file as onnxruntime optimises and saves it."""
    target = source.with_suffix(f".{level}.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return target


def assert_native_and_right(path: Path, feeds: dict[str, Array]) -> None:
    artifact = tuili.compile(path, path.with_suffix(".tuili"))
    assert artifact.manifest.host_steps == []
    assert_close(tuili.load(artifact.path).run(feeds), path, feeds)


def assert_close(found: dict[str, Array], path: Path, feeds: dict[str, Array]) -> None:
    expected = onnxruntime.InferenceSession(path).run(None, feeds)
    for array, wanted in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-4)


def operators(path: Path) -> set[str]:
    return {f"{node.domain}::{node.op_type}" for node in onnx.load(path).graph.node}


def tokens() -> dict[str, Array]:
    ids = RNG.integers(0, 50, (2, 7))
    mask = np.ones((2, 7), np.int64)
    mask[1, 5:] = 0
    return {"ids": ids, "types": (ids > 20).astype(np.int64), "mask": mask}


def test_a_convolutional_network(tmp_path: Path) -> None:
    path = saved(network(CONVNET, CONV_WEIGHTS, {}, tmp_path / "net.onnx"), "ORT_ENABLE_EXTENDED")
    assert "com.microsoft::FusedConv" in operators(path)
    assert_native_and_right(path, {"x": RNG.standard_normal((2, 3, 32, 32)).astype(np.float32)})


def test_a_transformer_by_the_session(tmp_path: Path) -> None:
    path = saved(network(BERT, BERT_WEIGHTS, BERT_NUMBERS, tmp_path / "net.onnx"), "ORT_ENABLE_ALL")
    assert {"com.microsoft::BiasGelu", "com.microsoft::FusedMatMul"} <= operators(path)
    assert not generate(import_model(path), Options()).program.host
    feeds = tokens()
    assert_close(run(import_model(path), feeds), path, feeds)


def test_a_transformer_by_the_offline_optimiser(tmp_path: Path) -> None:
    source = network(BERT, BERT_WEIGHTS, BERT_NUMBERS, tmp_path / "net.onnx")
    path = tmp_path / "fused.onnx"
    fused = optimizer.optimize_model(
        str(source), model_type="bert", num_heads=2, hidden_size=32, opt_level=0
    )
    fused.save_model_to_file(str(path))
    names = {"EmbedLayerNormalization", "SkipLayerNormalization", "BiasGelu"}
    assert {f"com.microsoft::{name}" for name in names} <= operators(path)
    assert_native_and_right(path, tokens())


class _Pictures:
    def __init__(self) -> None:
        self._left = 4

    def get_next(self) -> dict[str, Array] | None:
        self._left -= 1
        shape = (1, 3, 32, 32)
        return {"x": RNG.standard_normal(shape).astype(np.float32)} if self._left >= 0 else None


def quantized(folder: Path) -> Path:
    library: Any = quantization
    source = network(CONVNET, CONV_WEIGHTS, {}, folder / "net.onnx")
    target = folder / "codes.onnx"
    form = library.QuantFormat.QOperator
    library.quantize_static(source, target, _Pictures(), quant_format=form, reduce_range=True)
    return target


def steps(path: Path) -> Counter[str]:
    return Counter(node.op for node in generate(import_model(path), Options()).graph.nodes)


def test_channels_last_compile_to_the_program_of_channels_first(tmp_path: Path) -> None:
    source = quantized(tmp_path)
    path = saved(source, "ORT_ENABLE_ALL")
    assert "com.microsoft::NhwcMaxPool" in operators(path)
    assert steps(path) == steps(source)
    feeds = {"x": RNG.standard_normal((2, 3, 32, 32)).astype(np.float32)}
    assert_close(run(import_model(path), feeds), path, feeds)


def test_weights_in_one_processors_blocks_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = saved(network(CONVNET, CONV_WEIGHTS, {}, tmp_path / "net.onnx"), "ORT_ENABLE_ALL")
    if "com.microsoft.nchwc::Conv" not in operators(path):
        pytest.skip("onnxruntime has no blocks of channels for this processor")
    with pytest.raises(UnsupportedOperator, match="ORT_ENABLE_EXTENDED"):
        import_model(path)
