"""Attention operators of the standard and of com.microsoft run natively and agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tuili
from tests.ops.test_contrib_attention import CASES as CONTRIB_CASES
from tests.ops.test_contrib_attention import GROUPED
from tuili.importers.onnx import import_model
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array

RNG = np.random.default_rng(11)
B, S, P, H, D = 2, 5, 6, 4, 8
W = H * D


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def i32(*rows: Any) -> Array:
    return np.array(rows, np.int32)


@dataclass
class Case:
    """One node: inputs by position (None: left out), `weights` of them constants."""

    op: str
    inputs: list[Array | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    weights: tuple[int, ...] = ()
    # Of an open batch nobody knows whether so many numbers are ends, or ends and begins.
    ambiguous: bool = False

    @property
    def domain(self) -> str:
        return "com.microsoft" if self.op.startswith("com.microsoft::") else ""


PROJECTED = "com.microsoft::Attention"
MULTI = "com.microsoft::MultiHeadAttention"
TURN = "com.microsoft::RotaryEmbedding"
HEADS = {"num_heads": H}
QKV = [f32(B, S, W), f32(B, S, W), f32(B, S, W)]
NEW = [f32(W, 3 * W), f32(3 * W)]
PAST = [f32(B, H, P, D), f32(B, H, P, D)]
COS, SIN = f32(16, D // 2), f32(16, D // 2)
STANDARD = {"q_num_heads": H, "kv_num_heads": H}
SHARING = {"q_num_heads": H, "kv_num_heads": 2}
SHARED = [f32(B, S, 2 * D), f32(B, S, 2 * D)]
DEAD_ROW = np.tri(S, S, dtype=bool) & (np.arange(S)[:, None] != 2)
FLAGS = i32([1, 1, 1, 0, 0], [1, 1, 1, 1, 1])

CASES = {
    "projection": Case(PROJECTED, [f32(B, S, W), *NEW], HEADS, weights=(1, 2)),
    "key lengths": Case(PROJECTED, [f32(B, S, W), *NEW, i32(3, 5)], HEADS, weights=(1, 2)),
    "ends and begins": Case(
        PROJECTED, [f32(B, S, W), *NEW, i32(4, 5, 1, 0)], HEADS, weights=(1, 2), ambiguous=True
    ),
    "flags": Case(PROJECTED, [f32(B, S, W), *NEW, FLAGS], HEADS, weights=(1, 2)),
    "flags a row": Case(
        PROJECTED, [f32(B, S, W), *NEW, i32(*[np.tri(S)] * B)], HEADS, weights=(1, 2)
    ),
    "frontier": Case(
        PROJECTED, [f32(B, S, W), *NEW], {**HEADS, "unidirectional": 1}, weights=(1, 2)
    ),
    "past in one tensor": Case(
        PROJECTED, [f32(B, S, W), *NEW, None, f32(2, B, H, P, D)],
        {**HEADS, "unidirectional": 1}, outputs=2, weights=(1, 2),
    ),
    "bias of scores": Case(
        PROJECTED, [f32(B, S, W), *NEW, None, None, f32(B, H, S, S)], HEADS, weights=(1, 2)
    ),
    "scale": Case(PROJECTED, [f32(B, S, W), *NEW], {**HEADS, "scale": 0.7}, weights=(1, 2)),
    "values of another size": Case(
        PROJECTED, [f32(B, S, W), f32(W, 2 * W + 16), f32(2 * W + 16)],
        {**HEADS, "qkv_hidden_sizes": [W, W, 16]}, weights=(1, 2),
    ),
    "three inputs": Case(MULTI, QKV, HEADS),
    "three inputs, bias": Case(MULTI, [*QKV, f32(3 * W)], HEADS, weights=(3,)),
    "cross": Case(MULTI, [f32(B, S, W), f32(B, 7, W), f32(B, 7, W)], HEADS),
    "heads apart": Case(MULTI, [f32(B, S, W), f32(B, H, 7, D), f32(B, H, 7, D)], HEADS),
    "keys and values together": Case(
        MULTI, [f32(B, S, W), f32(B, 7, H, 2, D)], HEADS
    ),
    "all together": Case(MULTI, [f32(B, S, H, 3, D)], HEADS),
    "key padding": Case(MULTI, [*QKV, None, FLAGS], HEADS),
    "cache": Case(MULTI, [*QKV, None, None, None, *PAST], {**HEADS, "unidirectional": 1}, 3),
    "cache, bias of scores": Case(
        MULTI, [*QKV, None, None, f32(1, H, S, S + P), *PAST], HEADS, 3
    ),
    "turned": Case(TURN, [f32(B, H, S, D), np.arange(S * B).reshape(B, S), COS, SIN]),
    "turned from a start": Case(TURN, [f32(B, S, W), np.array([4]), COS, SIN], weights=(2, 3)),
    "turned, interleaved": Case(
        TURN, [f32(B, S, W), np.array([4]), COS, SIN], {"interleaved": 1}
    ),
    "turned in part": Case(
        TURN, [f32(B, H, S, D + 4), np.array([0]), COS, SIN],
        {"num_heads": H, "rotary_embedding_dim": D},
    ),
    "standard": Case("Attention", QKV, STANDARD),
    "standard, shared heads": Case("Attention", [QKV[0], *SHARED], {**SHARING, "is_causal": 1}),
    "standard, mask of truths with a row of none": Case("Attention", [*QKV, DEAD_ROW], STANDARD),
    "standard, cache": Case(
        "Attention", [*QKV, f32(S, S + P), *PAST], {**STANDARD, "is_causal": 1}, 3
    ),
    "standard, capped": Case(
        "Attention", [QKV[0], *SHARED, DEAD_ROW], {**SHARING, "softcap": 2.0}
    ),
    "standard, scores": Case("Attention", QKV, {**STANDARD, "qk_matmul_output_mode": 3}, 4),
    "standard, turned": Case(
        "RotaryEmbedding", [f32(B, S, W), COS, SIN, np.arange(S * B).reshape(B, S)],
        {"num_heads": H},
    ),
    "standard, turned in part": Case(
        "RotaryEmbedding", [f32(B, H, S, D + 4), f32(B, S, D // 2), f32(B, S, D // 2)],
        {"rotary_embedding_dim": D, "interleaved": 1},
    ),
}  # fmt: skip


def model_of(case: Case, *, open_dims: bool) -> tuple[Any, dict[str, Array]]:
    """The model and its feeds; batch and lengths have no number where dims are open."""
    names = [f"x{at}" if x is not None else "" for at, x in enumerate(case.inputs)]
    inputs, weights, feeds = [], [], {}
    for at, (name, array) in enumerate(zip(names, case.inputs, strict=True)):
        if array is None:
            continue
        if at in case.weights:
            weights.append(numpy_helper.from_array(array, name))
            continue
        feeds[name] = array
        dims: list[int | str] = list(array.shape)
        if open_dims:
            known = {H, D, W, D + 4, 2 * D, D // 2, 3}
            dims = [dim if dim in known else f"d{dim}" for dim in dims]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, dims))
    outputs = [f"y{at}" for at in range(case.outputs)]
    op_type = case.op.rpartition("::")[2]
    node = helper.make_node(op_type, names, outputs, domain=case.domain, **case.attrs)
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "g", inputs, results, weights)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def check(name: str, model: Any, feeds: dict[str, Array], folder: Path, *, native: bool) -> None:
    graph = import_model(model)
    infer(graph)
    wanted = run(graph, feeds)
    artifact = tuili.compile(model, folder / "model.tuili")
    assert bool(artifact.manifest.host_steps) != native, name
    got = tuili.load(artifact.path).run(feeds)
    for output, right in wanted.items():
        np.testing.assert_allclose(
            got[output], right, rtol=2e-5, atol=2e-5, err_msg=f"{name}: {output}"
        )


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUILI_CFLAGS", "-O1")  # half the time; what is computed is the same


@pytest.mark.parametrize("open_dims", [False, True], ids=["known", "open"])
@pytest.mark.usefixtures("quick_compiler")
def test_they_run_natively_and_mean_what_they_meant(open_dims: bool, tmp_path: Path) -> None:
    """All cases in one go: each C compiler call costs more than its case."""
    for name, case in CASES.items():
        model, feeds = model_of(case, open_dims=open_dims)
        check(name, model, feeds, tmp_path, native=not (open_dims and case.ambiguous))


GROUP_QUERY = [
    ("com.microsoft::GroupQueryAttention", inputs, {"num_heads": 4, "kv_num_heads": 2, **attrs}, n)
    for inputs, attrs, n in GROUPED
]
CONTRIB = [(f"com.microsoft::{op}", *rest) for op, *rest, _ in CONTRIB_CASES]
# What stays with the operator: buffers that are shared or beams, integers, packed rows.
HOST = {"DecoderMaskedMultiHeadAttention"}


def stays(op: str, inputs: list[Any], attrs: dict[str, Any], outputs: int) -> bool:
    """Whether a case is one that only the operator's own meaning can say."""
    multi = op.endswith("::MultiHeadAttention")
    buffered = multi and len(inputs) > 8
    packed = multi and any(x is not None and x.shape == (8,) for x in inputs[4:5])
    listed = op.rpartition("::")[2] in HOST
    return listed or buffered or packed or "sliding_window_cache" in attrs or outputs == 4


@pytest.mark.usefixtures("quick_compiler")
def test_the_cases_compared_with_onnxruntime_run_natively(tmp_path: Path) -> None:
    for number, (op, inputs, attrs, outputs) in enumerate([*CONTRIB, *GROUP_QUERY]):
        total = (6,) if "GroupQuery" in op else ()
        case = Case(op, inputs, attrs, outputs, weights=total)
        model, feeds = model_of(case, open_dims=False)
        native = not stays(op, inputs, attrs, outputs)
        check(f"{number} {op}", model, feeds, tmp_path, native=native)


WIDE = 16  # of a head: onnxruntime asks for a multiple


def language_model() -> Any:
    """One layer as generators of text have it: lengths come from the attention mask."""
    info = helper.make_tensor_value_info
    kept = ["b", 2, "past", WIDE]
    inputs = [
        info("x", TensorProto.FLOAT, ["b", "s", (H + 4) * WIDE]),
        info("mask", TensorProto.INT64, ["b", "total"]),
        info("k", TensorProto.FLOAT, kept),
        info("v", TensorProto.FLOAT, kept),
    ]
    weights = [
        numpy_helper.from_array(np.array(1, np.int64), "one"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(f32(16, WIDE // 2), "cos"),
        numpy_helper.from_array(f32(16, WIDE // 2), "sin"),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["mask", "axis"], ["sum"], keepdims=0),
        helper.make_node("Sub", ["sum", "one"], ["last"]),
        helper.make_node("Cast", ["last"], ["seqlens"], to=TensorProto.INT32),
        helper.make_node("Shape", ["mask"], ["dims"]),
        helper.make_node("Gather", ["dims", "one"], ["wide"], axis=0),
        helper.make_node("Cast", ["wide"], ["total_length"], to=TensorProto.INT32),
        helper.make_node(
            "GroupQueryAttention",
            ["x", "", "", "k", "v", "seqlens", "total_length", "cos", "sin"],
            ["y", "new_k", "new_v"],
            domain="com.microsoft",
            num_heads=H,
            kv_num_heads=2,
            do_rotary=1,
        ),
    ]
    outputs = [info(name, TensorProto.FLOAT, None) for name in ("y", "new_k", "new_v")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("room", [0, 16], ids=["growing cache", "cache with room"])
def test_text_is_generated_step_by_step_as_in_onnxruntime(room: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = language_model()
    artifact = tuili.compile(model, tmp_path / "model.tuili")
    assert not artifact.manifest.host_steps
    ours, theirs = (
        tuili.load(artifact.path),
        onnxruntime.InferenceSession(model.SerializeToString()),
    )
    cache = [np.zeros((B, 2, room, WIDE), np.float32)] * 2
    known = 0
    for tokens in (5, 1, 1):
        feeds = {
            "x": f32(B, tokens, (H + 4) * WIDE),
            "mask": np.ones((B, known + tokens), np.int64),
        }
        feeds |= dict(zip("kv", cache, strict=True))
        wanted = dict(zip(("y", "new_k", "new_v"), theirs.run(None, feeds), strict=True))
        got, known = ours.run(feeds), known + tokens
        np.testing.assert_allclose(got["y"], wanted["y"], rtol=1e-4, atol=1e-5)
        for name in ("new_k", "new_v"):
            used = np.s_[:, :, :known]
            np.testing.assert_allclose(got[name][used], wanted[name][used], rtol=1e-4, atol=1e-5)
        cache = [got["new_k"], got["new_v"]]
