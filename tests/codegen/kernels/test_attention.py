"""Attention: the pass finds it, the kernel equals its meaning."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import tuili
from tests.codegen.compiled import HERE, Case, Cases
from tests.passes.support import load, run_on_random
from tuili.codegen.targets import Target
from tuili.ir import verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.attention.fuse import fuse_attention
from tuili.passes.dead import remove_dead
from tuili.tensors import Array

# One worker compiles all cases.
pytestmark = pytest.mark.xdist_group("attention")

RNG = np.random.default_rng(3)


def normal(order: str, **sizes: int) -> Array:
    return RNG.standard_normal([sizes[axis] for axis in order]).astype(np.float32)


def attention(
    orders: tuple[str, str, str, str],
    rows: int = 9,
    keys: int = 9,
    depth: int = 8,
    width: int = 8,
    mask: tuple[int, ...] | None = None,
    names: dict[int, list[int | str]] | None = None,
) -> Case:
    q, k, v, y = orders
    inputs = [
        normal(q, b=2, h=3, s=rows, d=depth),
        normal(k, b=2, h=3, s=keys, d=depth),
        normal(v, b=2, h=3, s=keys, d=width),
        None if mask is None else RNG.standard_normal(mask).astype(np.float32),
    ]
    attrs = {"scale": 0.25, "q_order": q, "k_order": k, "v_order": v, "y_order": y}
    return Case("FusedAttention", inputs, attrs, dims=names or {})


HEADS_FIRST = ("bhsd", "bhsd", "bhsd", "bhsd")
CASES = {
    **{
        "-".join(orders): attention(orders)
        for orders in product(
            ("bhsd", "bshd"), ("bhsd", "bshd", "bhds"), ("bhsd", "bshd"), ("bhsd", "bshd")
        )
    },
    "many rows": attention(HEADS_FIRST, rows=150, keys=130, depth=32, width=40),
    "few rows": attention(
        ("bshd", "bshd", "bshd", "bshd"), rows=3, keys=37, depth=20, width=76, mask=(2, 1, 3, 37)
    ),
    "few rows, keys already turned": attention(("bshd", "bhds", "bhsd", "bhsd"), rows=2),
    "a row for heads that share keys": Case(
        "FusedAttention",
        [normal("bhsd", b=2, h=6, s=1, d=8), *(normal("bhsd", b=2, h=2, s=7, d=8) for _ in "kv")],
    ),
    "a row that sees nothing": Case(
        "FusedAttention",
        [
            *(normal("bhsd", b=1, h=2, s=2, d=8) for _ in "qkv"),
            np.array([[0, 0], [-np.inf, -np.inf]], np.float32),
        ],
    ),
    "one row": attention(HEADS_FIRST, rows=1, keys=70),
    "heads that share keys": Case(
        "FusedAttention",
        [normal("bhsd", b=2, h=6, s=9, d=8), *(normal("bshd", b=2, h=2, s=7, d=8) for _ in "kv")],
        {"scale": 0.25, "k_order": "bshd", "v_order": "bshd"},
    ),
    "rows that see nothing": Case(
        "FusedAttention",
        [
            *(normal("bhsd", b=2, h=3, s=9, d=8) for _ in "qkv"),
            np.where(np.arange(9)[:, None] % 4 == 1, -np.inf, np.zeros((9, 9))).astype(np.float32),
        ],
    ),
    "full mask": attention(HEADS_FIRST, mask=(2, 3, 9, 9)),
    "mask of keys": attention(HEADS_FIRST, keys=37, mask=(2, 1, 1, 37)),
    "mask of rows": attention(HEADS_FIRST, mask=(9, 1)),
    "open dims": attention(
        HEADS_FIRST,
        rows=20,
        keys=33,
        mask=(2, 1, 20, 33),
        names={
            0: ["B", 3, "S", 8],
            1: ["B", 3, "T", 8],
            2: ["B", 3, "T", 8],
            3: ["B", "M", "S", "T"],
        },
    ),
}


@cache
def compiled(target: Target, threads: int) -> Cases:
    return Cases(CASES, target) if threads == 1 else compiled(target, 1).on(threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_attention_equals_its_meaning(name: str, target: Target, threads: int) -> None:
    compiled(target, threads).check(name)


TEXT = """
graph main(%q: f32[2, 5, 3, 4], %k: f32[2, 6, 3, 4], %v: f32[2, 6, 3, 4], %m: f32[2, 1, 1, 6],
           %n: f32[3, 5, 6]) {{
  %c = constant f32[] [2.0]
  %qt = Transpose(%q) {{perm=[0, 2, 1, 3]}}
  %kt = Transpose(%k) {{perm=[0, 2, 3, 1]}}
  %vt = Transpose(%v) {{perm=[0, 2, 1, 3]}}
  %s = MatMul(%qt, %kt)
  {scores}
  %w = Softmax(%a) {{axis=-1}}
  %y = MatMul(%w, %vt)
  %yt = Transpose(%y) {{perm=[0, 2, 1, 3]}}
  return %yt
}}
"""


@pytest.mark.parametrize(
    "scores",
    [
        "%d = Div(%s, %c)\n %a = Add(%d, %m)",
        "%d = Mul(%c, %s)\n %a = Add(%m, %d)",
        "%a = Add(%s, %m)",
        "%a = Mul(%s, %c)",
        "%a = Identity(%s)",
    ],
)
def test_spelt_out_attention_becomes_one_node(scores: str) -> None:
    text = TEXT.format(scores=scores).replace("%a = Identity(%s)", "")
    text = text.replace("Softmax(%a)", "Softmax(%s)") if "Identity" in scores else text
    before, after = load(text), load(text)
    assert fuse_attention(after)
    remove_dead(after)
    verify(after)
    assert [node.op for node in after.nodes] == ["FusedAttention"]
    np.testing.assert_allclose(run_on_random(after)[0], run_on_random(before)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("scores", "made"),
    [
        ("%d = Add(%s, %n)\n %a = Add(%d, %m)", ["Add"]),
        ("%d = Add(%s, %n)\n %e = Mul(%d, %c)\n %a = Add(%m, %e)", ["Mul", "Add"]),
        ("%d = Add(%n, %s)\n %e = Mul(%d, %c)\n %a = Div(%e, %c)", []),
        ("%d = Add(%s, %n)\n %e = Add(%d, %m)\n %a = Mul(%e, %c)", ["Mul", "Mul", "Add"]),
    ],
)
def test_what_is_added_one_after_another_is_one_mask(scores: str, made: list[str]) -> None:
    before, after = load(TEXT.format(scores=scores)), load(TEXT.format(scores=scores))
    assert fuse_attention(after)
    remove_dead(after)
    verify(after)
    assert [node.op for node in after.nodes if node.op != "FusedAttention"] == made
    np.testing.assert_allclose(
        run_on_random(after)[0], run_on_random(before)[0], rtol=1e-5, atol=1e-6
    )


def test_scores_that_are_read_elsewhere_stay() -> None:
    text = TEXT.format(scores="%a = Add(%s, %m)").replace("return %yt", "return %yt, %w")
    assert not fuse_attention(load(text))


# As PyTorch's exporter writes scaled_dot_product_attention with fewer heads of keys.
SHARED = """
graph main(%q: f32[2, 6, 5, 4], %k: f32[2, 3, 7, 4], %v: f32[2, 3, 7, 4], %m: f32[2, 1, 5, 7]) {
  %root = constant f32[] [0.5]
  %zero = constant f32[] [0.0]
  %at = constant i64[1] [2]
  %five = constant i64[5] [2, 3, 2, 7, 4]
  %four = constant i64[4] [2, 6, 7, 4]
  %flat = constant i64[3] [12, 7, 4]
  %apart = constant i64[4] [2, 6, 4, 7]
  %k1 = Unsqueeze(%k, %at)
  %k2 = Expand(%k1, %five)
  %k3 = Reshape(%k2, %flat)
  %k4 = Transpose(%k3) {perm=[0, 2, 1]}
  %k5 = Reshape(%k4, %apart)
  %v1 = Unsqueeze(%v, %at)
  %v2 = Expand(%v1, %five)
  %v3 = Reshape(%v2, %four)
  %qs = Mul(%q, %root)
  %ks = Mul(%k5, %root)
  %s = MatMul(%qs, %ks)
  %a = Add(%s, %m)
  %w = Softmax(%a) {axis=-1}
  %nan = IsNaN(%w)
  %clean = Where(%nan, %zero, %w)
  %y = MatMul(%clean, %v3)
  return %y
}
"""


@pytest.mark.parametrize("weights", ["%clean", "%w"])
def test_what_pytorch_scales_turns_and_repeats_is_in_the_node(weights: str) -> None:
    text = SHARED.replace("MatMul(%clean", f"MatMul({weights}")
    if weights == "%w":
        text = "\n".join(line for line in text.splitlines() if "%nan" not in line)
    before, after = load(text), load(text)
    assert fuse_attention(after)
    remove_dead(after)
    verify(after)
    assert [node.op for node in after.nodes] == ["FusedAttention"]
    assert {value.name for value in after.nodes[0].inputs} == {"q", "k", "v", "m"}
    np.testing.assert_allclose(run_on_random(after)[0], run_on_random(before)[0], rtol=1e-5)


def test_an_attention_node_reads_the_heads_before_they_were_repeated() -> None:
    text = """
    graph main(%q: f32[2, 6, 5, 4], %k: f32[2, 3, 7, 4], %v: f32[2, 3, 7, 4]) {
      %at = constant i64[1] [2]
      %five = constant i64[5] [2, 3, 2, 7, 4]
      %four = constant i64[4] [2, 6, 7, 4]
      %k1 = Unsqueeze(%k, %at)
      %k2 = Expand(%k1, %five)
      %k3 = Reshape(%k2, %four)
      %v1 = Unsqueeze(%v, %at)
      %v2 = Expand(%v1, %five)
      %v3 = Reshape(%v2, %four)
      %y = FusedAttention(%q, %k3, %v3) {scale=0.5}
      return %y
    }
    """
    before, after = load(text), load(text)
    assert fuse_attention(after)
    remove_dead(after)
    assert [node.op for node in after.nodes] == ["FusedAttention"]
    np.testing.assert_allclose(run_on_random(after)[0], run_on_random(before)[0], rtol=1e-5)


def test_attention_over_as_many_keys_as_data_decides(tmp_path: Path) -> None:
    text = """
    graph main(%q: f32[1, 4, 5, 8], %k: f32[9, 16], %m: f32[9], %b: f32[5, 1]) {
      %apart = constant i64[4] [1, -1, 2, 8]
      %turn = constant i64[1] [-1]
      %where = NonZero(%m)
      %at = Reshape(%where, %turn)
      %kept = Gather(%k, %at) {axis=0}
      %kv = Reshape(%kept, %apart)
      %y = FusedAttention(%q, %kv, %kv, %b) {scale=0.5, k_order="bshd", v_order="bshd"}
      return %y
    }
    """
    artifact = tuili.compile(load(text), tmp_path / "model.tuili")
    assert not artifact.manifest.host_steps
    model = tuili.load(artifact.path)
    feeds = {"q": normal("bhsd", b=1, h=4, s=5, d=8), "k": normal("bd", b=9, d=16)}
    feeds["b"] = np.array([[0], [1], [-np.inf], [0], [0]], np.float32)
    graph = load(text)
    infer(graph)
    for count in (9, 3, 1):
        feeds["m"] = (np.arange(9) < count).astype(np.float32)
        got, want = model.run(feeds)["y"], run(graph, feeds)["y"]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
