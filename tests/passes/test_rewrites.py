"""Single passes: text in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np
import pytest

from tests.passes.support import feeds
from tuili.ir import Graph, TensorType, verify
from tuili.ir.text import parse, to_text
from tuili.ops.contents import Contents
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.branches import inline_branches
from tuili.passes.casts import plain_casts
from tuili.passes.cse import share_equal_nodes
from tuili.passes.dead import remove_dead
from tuili.passes.fold_shapes import fold_shapes
from tuili.passes.kept_axes import keep_axes
from tuili.passes.movement import merge_movement
from tuili.passes.pads import fold_pads
from tuili.passes.recognise import recognise
from tuili.passes.strength import reduce_strength
from tuili.tensors import DType

Pass = Callable[[Graph, Contents], bool]


def rewritten(rewrite: Pass, text: str) -> Graph:
    """The graph after a pass and removal of what is dead; its meaning is checked on the way."""
    graph = parse(text)
    contents = infer(graph)
    given = feeds(graph)
    before = run(graph, given)
    rewrite(graph, contents)
    remove_dead(graph)
    verify(graph)
    infer(graph)
    after = run(graph, given)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-6)
    return graph


def lines(text: str) -> str:
    return textwrap.dedent(text).strip() + "\n"


CASES: dict[str, tuple[Pass, str, str]] = {
    "a padding of zeros joins the convolution": (
        fold_pads,
        """
        graph main(%x: f32[1, 1, 3, 3]) {
          %w = constant f32[1, 1, 2, 2] [1.0, 2.0, 3.0, 4.0]
          %pads = constant i64[8] [0, 0, 0, 1, 0, 0, 1, 1]
          %p: f32[1, 1, 4, 5] = Pad(%x, %pads)
          %y: f32[1, 1, 4, 4] = Conv(%p, %w) {pads=[0, 0, 1, 0]}
          return %y
        }
        """,
        """
        graph main(%x: f32[1, 1, 3, 3]) {
          %w = constant f32[1, 1, 2, 2] [1.0, 2.0, 3.0, 4.0]
          %y: f32[1, 1, 4, 4] = Conv(%x, %w) {pads=[0, 1, 2, 1]}
          return %y
        }
        """,
    ),
    "a padding of named axes joins the average, whose zeros count": (
        fold_pads,
        """
        graph main(%x: f32[1, 1, 2]) {
          %pads = constant i64[2] [1, 0]
          %axes = constant i64[1] [-1]
          %zero = constant f32[] [0.0]
          %p: f32[1, 1, 3] = Pad(%x, %pads, %zero, %axes)
          %y: f32[1, 1, 2] = AveragePool(%p) {kernel_shape=[2]}
          return %y
        }
        """,
        """
        graph main(%x: f32[1, 1, 2]) {
          %y: f32[1, 1, 2] = AveragePool(%x) {count_include_pad=1, kernel_shape=[2], pads=[1, 0]}
          return %y
        }
        """,
    ),
    "a padding of zeros stays before a maximum": (
        fold_pads,
        """
        graph main(%x: f32[1, 1, 3, 3]) {
          %pads = constant i64[8] [0, 0, 0, 1, 0, 0, 0, 0]
          %p: f32[1, 1, 3, 4] = Pad(%x, %pads)
          %y: f32[1, 1, 2, 3] = MaxPool(%p) {kernel_shape=[2, 2]}
          return %y
        }
        """,
        "",
    ),
    "a padding of channels stays": (
        fold_pads,
        """
        graph main(%x: f32[1, 1, 2, 2]) {
          %w = constant f32[1, 2, 1, 1] [1.0, 2.0]
          %pads = constant i64[8] [0, 1, 0, 0, 0, 0, 0, 0]
          %p: f32[1, 2, 2, 2] = Pad(%x, %pads)
          %y: f32[1, 1, 2, 2] = Conv(%p, %w)
          return %y
        }
        """,
        "",
    ),
    "a softmax of what has its largest subtracted subtracts it itself": (
        recognise,
        """
        graph main(%x: f32[2, 3, 4]) {
          %axes = constant i64[1] [-1]
          %a = constant f32[] [32.0]
          %top: f32[2, 3, 1] = ReduceMax(%x, %axes)
          %below: f32[2, 3, 4] = Sub(%x, %top)
          %scaled: f32[2, 3, 4] = Mul(%below, %a)
          %p: f32[2, 3, 4] = Softmax(%scaled) {axis=2}
          %y: f32[2, 3, 4] = Relu(%p)
          return %y
        }
        """,
        """
        graph main(%x: f32[2, 3, 4]) {
          %a = constant f32[] [32.0]
          %mul: f32[2, 3, 4] = Mul(%x, %a)
          %softmax: f32[2, 3, 4] = Softmax(%mul) {axis=-1}
          %y: f32[2, 3, 4] = Relu(%softmax)
          return %y
        }
        """,
    ),
    "a softmax of what has the largest of other lines subtracted stays": (
        recognise,
        """
        graph main(%x: f32[2, 3, 4]) {
          %axes = constant i64[1] [1]
          %top: f32[2, 1, 4] = ReduceMax(%x, %axes)
          %below: f32[2, 3, 4] = Sub(%x, %top)
          %y: f32[2, 3, 4] = Softmax(%below)
          return %y
        }
        """,
        "",
    ),
    "a reduction keeps the axes that are put back behind it": (
        keep_axes,
        """
        graph main(%x: f32[2, 3, 4]) {
          %axes = constant i64[2] [-1, 0]
          %back = constant i64[2] [0, 2]
          %m: f32[3] = ReduceMean(%x, %axes) {keepdims=0}
          %u: f32[1, 3, 1] = Unsqueeze(%m, %back)
          %y: f32[2, 3, 4] = Sub(%x, %u)
          return %y
        }
        """,
        """
        graph main(%x: f32[2, 3, 4]) {
          %axes = constant i64[2] [-1, 0]
          %m: f32[1, 3, 1] = ReduceMean(%x, %axes) {keepdims=1}
          %y: f32[2, 3, 4] = Sub(%x, %m)
          return %y
        }
        """,
    ),
    "what is largest of a convolved signal is a pooling": (
        recognise,
        """
        graph main(%x: f32[1, 3, 9], %w: f32[4, 3, 2]) {
          %axes = constant i64[1] [2]
          %c: f32[1, 4, 8] = Conv(%x, %w)
          %r: f32[1, 4, 8] = Relu(%c)
          %y: f32[1, 4, 1] = ReduceMax(%r, %axes) {keepdims=1}
          return %y
        }
        """,
        """
        graph main(%x: f32[1, 3, 9], %w: f32[4, 3, 2]) {
          %c: f32[1, 4, 8] = Conv(%x, %w)
          %r: f32[1, 4, 8] = Relu(%c)
          %y: f32[1, 4, 1] = GlobalMaxPool(%r)
          return %y
        }
        """,
    ),
    "what is largest in a row of a sequence is none": (
        recognise,
        """
        graph main(%x: f32[1, 3, 9]) {
          %axes = constant i64[1] [2]
          %y: f32[1, 3, 1] = ReduceMax(%x, %axes) {keepdims=1}
          return %y
        }
        """,
        "",
    ),
    "axes that are put elsewhere stay dropped": (
        keep_axes,
        """
        graph main(%x: f32[2, 3, 4]) {
          %axes = constant i64[1] [2]
          %back = constant i64[1] [0]
          %m: f32[2, 3] = ReduceSum(%x, %axes) {keepdims=0}
          %y: f32[1, 2, 3] = Unsqueeze(%m, %back)
          return %y
        }
        """,
        "",
    ),
    "chains of views become one": (
        merge_movement,
        """
        graph main(%x: f32[2, 3, 4]) {
          %zero = constant i64[1] [0]
          %u: f32[1, 2, 3, 4] = Unsqueeze(%x, %zero)
          %f: f32[2, 12] = Flatten(%u) {axis=2}
          %y: f32[2, 12] = Relu(%f)
          return %y
        }
        """,
        """
        graph main(%x: f32[2, 3, 4]) {
          %shape = constant i64[2] [2, 12]
          %reshape: f32[2, 12] = Reshape(%x, %shape)
          %y: f32[2, 12] = Relu(%reshape)
          return %y
        }
        """,
    ),
    "chains of transpositions become one": (
        merge_movement,
        """
        graph main(%x: f32[2, 3, 4]) {
          %a: f32[4, 3, 2] = Transpose(%x)
          %y: f32[3, 2, 4] = Transpose(%a) {perm=[1, 2, 0]}
          return %y
        }
        """,
        """
        graph main(%x: f32[2, 3, 4]) {
          %y: f32[3, 2, 4] = Transpose(%x) {perm=[1, 0, 2]}
          return %y
        }
        """,
    ),
    "a transposition of axes of size 1 is a view": (
        merge_movement,
        """
        graph main(%x: f32[2, 1, 4]) {
          %t: f32[2, 4, 1] = Transpose(%x) {perm=[0, 2, 1]}
          return %t
        }
        """,
        """
        graph main(%x: f32[2, 1, 4]) {
          %shape = constant i64[3] [2, 4, 1]
          %t: f32[2, 4, 1] = Reshape(%x, %shape)
          return %t
        }
        """,
    ),
    "a known branch is inlined": (
        inline_branches,
        """
        graph main(%x: f32[2]) {
          %c = constant bool[] [1]
          %y: f32[2] = If(%c) {else_branch=graph no() {
            %n: f32[2] = Neg(%x)
            return %n
          }, then_branch=graph yes() {
            %k = constant f32[] [2.0]
            %d = constant bool[] [0]
            %p: f32[2] = Add(%x, %k)
            %q: f32[2] = If(%d) {else_branch=graph a() {
              %s: f32[2] = Sub(%p, %k)
              return %s
            }, then_branch=graph b() {
              return %p
            }}
            return %q
          }}
          return %y
        }
        """,
        """
        graph main(%x: f32[2]) {
          %k_1 = constant f32[] [2.0]
          %p_1: f32[2] = Add(%x, %k_1)
          %y: f32[2] = Sub(%p_1, %k_1)
          return %y
        }
        """,
    ),
    "powers and quotients become products": (
        reduce_strength,
        """
        graph main(%x: f32[2]) {
          %two = constant f32[] [2.0]
          %four = constant f32[] [4.0]
          %a: f32[2] = Pow(%x, %two)
          %y: f32[2] = Div(%a, %four)
          return %y
        }
        """,
        """
        graph main(%x: f32[2]) {
          %y_inverse = constant f32[] [0.25]
          %mul: f32[2] = Mul(%x, %x)
          %y: f32[2] = Mul(%mul, %y_inverse)
          return %y
        }
        """,
    ),
    "quotients by numbers without an inverse stay": (
        reduce_strength,
        """
        graph main(%x: f32[2]) {
          %c = constant f32[2] [0.0, 1e-45]
          %y: f32[2] = Div(%x, %c)
          return %y
        }
        """,
        "",
    ),
    "a cast learns its type": (
        lambda graph, contents: plain_casts(graph),
        """
        graph main(%x: f32[2], %k: f64[3]) {
          %y: f64[2] = CastLike(%x, %k)
          return %y
        }
        """,
        """
        graph main(%x: f32[2], %k: f64[3]) {
          %y: f64[2] = Cast(%x) {to=f64}
          return %y
        }
        """,
    ),
    "sizes that depend on data keep their node": (
        fold_shapes,
        """
        graph main(%x: f32[4]) {
          metadata "symbol.u0" = "n#1"
          %n: i64[1, u0] = NonZero(%x)
          %y: i64[2] = Shape(%n)
          return %y
        }
        """,
        "",
    ),
}


@pytest.mark.parametrize(("rewrite", "before", "after"), CASES.values(), ids=CASES)
def test_a_pass_rewrites_text(rewrite: Pass, before: str, after: str) -> None:
    found = to_text(rewritten(rewrite, lines(before)))
    assert found == lines(after or before)


def test_equal_constants_are_shared_and_signed_zeros_are_not() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (200,)))
    arrays = [np.zeros(200, np.float32) for _ in range(4)]
    arrays[1][77] = -0.0
    arrays[3][77] = np.nan
    for array in (*arrays, arrays[3].copy()):
        x = graph.add("Add", [x, graph.add_constant(array, "c")], types=[x.type]).output
    graph.set_outputs([x])
    assert share_equal_nodes(graph)
    assert list(graph.constants) == ["c", "c_1", "c_3"]
    verify(graph)


NORMAL = """
graph main(%x: f32[2, 4]) {{
  %eps = constant f32[] [0.001]
  %two = constant f32[] [2.0]
  %one = constant f32[] [1.0]
  %half = constant f32[] [0.5]
  %three = constant f32[] [3.0]
  %six = constant f32[] [6.0]
  %sixth = constant f32[] [0.16666667]
  %root = constant f32[] [1.4142135]
  %axes = constant i64[1] [-1]
  %g = constant f32[4] [1.0, 2.0, 3.0, 4.0]
  %b = constant f32[4] [0.5, 0.25, 0.125, 1.0]
  {body}
}}
"""

SPELLINGS = {
    "LayerNormalization": """
        %m = ReduceMean(%x, %axes)
        %d = Sub(%x, %m)
        %q = Mul(%d, %d)
        %v = ReduceMean(%q, %axes)
        %e = Add(%v, %eps)
        %s = Sqrt(%e)
        %r = Reciprocal(%s)
        %n = Mul(%d, %r)
        %a = Mul(%g, %n)
        %y = Add(%b, %a)
        return %y""",
    "LayerNormalization ": """
        %m = ReduceMean(%x, %axes)
        %d = Sub(%x, %m)
        %q = Pow(%d, %two)
        %v = ReduceMean(%q, %axes)
        %e = Add(%v, %eps)
        %s = Sqrt(%e)
        %y = Div(%d, %s)
        return %y""",
    "RMSNormalization": """
        %q = Pow(%x, %two)
        %v = ReduceMean(%q, %axes)
        %e = Add(%v, %eps)
        %s = Sqrt(%e)
        %r = Div(%one, %s)
        %n = Mul(%x, %r)
        %y = Mul(%g, %n)
        return %y""",
    "Softmax": """
        %m = ReduceMax(%x, %axes)
        %d = Sub(%x, %m)
        %e = Exp(%d)
        %s = ReduceSum(%e, %axes)
        %y = Div(%e, %s)
        return %y""",
    "HardSwish": """
        %a = Add(%x, %three)
        %zero = constant f32[] [0.0]
        %c = Clip(%a, %zero, %six)
        %m = Mul(%x, %c)
        %y = Div(%m, %six)
        return %y""",
    "Gelu": """
        %d = Div(%x, %root)
        %e = Erf(%d)
        %o = Add(%e, %one)
        %h = Mul(%half, %x)
        %y = Mul(%o, %h)
        return %y""",
}


@pytest.mark.parametrize("op", SPELLINGS)
def test_what_is_spelt_out_gets_its_name(op: str) -> None:
    graph = rewritten(recognise, NORMAL.format(body=textwrap.dedent(SPELLINGS[op]).strip()))
    assert [node.op for node in graph.nodes] == [op.strip()]
