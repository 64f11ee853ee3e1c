"""Short loops become the nodes of their rounds; the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds, load
from tuili.ir import Graph, verify
from tuili.ir.text import to_text
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.pipeline import optimise
from tuili.passes.unroll import NATIVE, PYTHON, unroll_loops

SUMS = """
graph main(%x: f32[2]) {
  %n = constant i64[] [2]
  %last, %sums = Loop(%n, _, %x) {body=graph body(%i: i64[], %on: bool[], %s: f32[2]) {
    %k = constant f32[] [3.0]
    %go = Identity(%on)
    %t = Add(%s, %k)
    return %go, %t, %t
  }} "sums"
  return %last, %sums
}
"""

UNROLLED = """\
graph main(%x: f32[2]) {
  %n = constant i64[] [2]
  %k_1 = constant f32[] [3.0]
  %last.round0 = constant i64[] [0]
  %last.round0_1 = constant bool[] [1]
  %last.round1 = constant i64[] [1]
  %last.round1_1 = constant bool[] [1]
  %axes = constant i64[1] [0]
  %go.round0: bool[] = Identity(%last.round0_1)
  %t.round0: f32[2] = Add(%x, %k_1)
  %go.round1: bool[] = Identity(%last.round1_1)
  %last: f32[2] = Add(%t.round0, %k_1)
  %t.round0.row: f32[1, 2] = Unsqueeze(%t.round0, %axes)
  %t.round1.row: f32[1, 2] = Unsqueeze(%last, %axes)
  %sums: f32[2, 2] = Concat(%t.round0.row, %t.round1.row) {axis=0}
  return %last, %sums
}
"""


def unrolled(graph: Graph) -> bool:
    """Unroll once, and check that the graph is sound."""
    changed = unroll_loops(graph, infer(graph))
    verify(graph)
    infer(graph)
    return changed


def left(graph: Graph) -> list[str]:
    return [node.op for node in graph.walk() if node.op in ("Loop", "Scan")]


def test_the_rounds_stand_where_the_loop_stood() -> None:
    graph = load(SUMS)
    assert unrolled(graph)
    assert to_text(graph) == UNROLLED


LOOPS = {
    "states change places": """
        %n = constant i64[] [3]
        %y, %z = Loop(%n, _, %x, %w) {body=graph b(
          %i: i64[], %on: bool[], %s: f32[2, 3], %t: f32[2, 3]) {
          %u = Add(%s, %t)
          return %on, %t, %u
        }}
        return %y, %z""",
    "rounds in rounds, as many as the outer round says": """
        %n = constant i64[] [3]
        %y, %z = Loop(%n, _, %x) {body=graph b(%i: i64[], %on: bool[], %s: f32[2, 3]) {
          %r, %p = Loop(%i, _, %s) {body=graph c(%j: i64[], %on2: bool[], %v: f32[2, 3]) {
            %q = Mul(%v, %w)
            return %on2, %q, %s
          }}
          %m = ReduceSum(%p) {keepdims=0}
          return %on, %r, %m
        }}
        return %y, %z""",
    "a branch in every round": """
        %n = constant i64[] [3]
        %one = constant i64[] [1]
        %y = Loop(%n, _, %x) {body=graph b(%i: i64[], %on: bool[], %s: f32[2, 3]) {
          %c = Less(%i, %one)
          %r = If(%c) {then_branch=graph t() {
            %k = constant f32[] [2.0]
            %a = Mul(%s, %k)
            return %a
          }, else_branch=graph e() {
            %a2 = Add(%s, %w)
            return %a2
          }}
          return %on, %r
        }}
        return %y""",
    "no round, states only": """
        %n = constant i64[] [0]
        %y, %z = Loop(%n, _, %x, %x) {body=graph b(
          %i: i64[], %on: bool[], %s: f32[2, 3], %t: f32[2, 3]) {
          %u = Add(%s, %t)
          return %on, %u, %s
        }}
        return %y, %z""",
    "no round, no rows": """
        %n = constant i64[] [0]
        %y, %z = Loop(%n, _, %x) {body=graph b(%i: i64[], %on: bool[], %s: f32[2, 3]) {
          %u = Add(%s, %w)
          return %on, %u, %u
        }}
        return %y, %z""",
    "what comes from outside is given out": """
        %n = constant i64[] [2]
        %yes = constant bool[] [1]
        %k = constant f32[2] [1.0, 2.0]
        %y, %z, %v = Loop(%n, %yes, %x) {body=graph b(%i: i64[], %on: bool[], %s: f32[2, 3]) {
          return %yes, %w, %s, %k
        }}
        return %y, %z, %v""",
    "one value twice": """
        %n = constant i64[] [1]
        %y, %z = Loop(%n, _, %x, %x) {body=graph b(
          %i: i64[], %on: bool[], %s: f32[2, 3], %t: f32[2, 3]) {
          %u = Add(%s, %t)
          return %on, %u, %u
        }}
        return %y, %z""",
    "a scan": """
        %k = constant f32[2] [1.0, 2.0]
        %y, %z = Scan(%k, %x) {num_scan_inputs=1, scan_input_axes=[1],
          body=graph b(%s: f32[2], %p: f32[2]) {
          %t = Add(%s, %p)
          return %t, %t
        }}
        return %y, %z""",
    "a scan backward": """
        %k = constant f32[3] [1.0, 2.0, 3.0]
        %y, %z = Scan(%k, %x, %w) {num_scan_inputs=2, scan_input_directions=[1, 0],
          scan_output_axes=[-1], scan_output_directions=[1],
          body=graph b(%s: f32[3], %p: f32[3], %q: f32[3]) {
          %t = Mul(%s, %p)
          %u = Add(%t, %q)
          return %u, %u
        }}
        return %y, %z""",
}  # fmt: skip


@pytest.mark.parametrize("lines", LOOPS.values(), ids=LOOPS.keys())
def test_the_meaning_stays(lines: str) -> None:
    text = f"graph main(%x: f32[2, 3], %w: f32[2, 3]) {{ {lines} }}"
    graph = load(text)
    before = run(graph, feeds(graph))
    while unrolled(graph):
        pass
    assert not left(graph)
    after = run(graph, feeds(graph))
    assert list(after) == list(before)
    for name, expected in before.items():
        np.testing.assert_array_equal(after[name], expected)
    optimise(graph, block=8, on_pass=lambda name, each: verify(each, after=name))
    for name, expected in before.items():
        np.testing.assert_allclose(run(graph, feeds(graph))[name], expected, rtol=1e-5)


def bounded(rounds: int, nodes: int) -> Graph:
    """A loop of so many rounds of so many additions."""
    adds = "\n".join(f"%a{at + 1} = Add(%a{at}, %x)" for at in range(nodes))
    return load(
        f"graph main(%x: f32[2]) {{ %n = constant i64[] [{rounds}]\n"
        "%y = Loop(%n, _, %x) {body=graph b(%i: i64[], %on: bool[], %a0: f32[2]) {"
        f"{adds}\n return %on, %a{nodes} }} }}\n return %y }}"
    )


@pytest.mark.parametrize(
    ("rounds", "nodes", "short"),
    [
        (1, 500, True),
        (2, NATIVE.more_nodes, True),
        (2, NATIVE.more_nodes + 1, False),
        (NATIVE.rounds, 1, True),
        (NATIVE.rounds + 1, 1, False),
    ],
)
def test_long_ones_stay(rounds: int, nodes: int, short: bool) -> None:
    assert unrolled(bounded(rounds, nodes)) is short


STAYING = {
    "the number of rounds is not known": ("%m", "%f", "%on", "Add(%s, %x)"),
    "whether it begins is not known": ("%n", "%f", "%on", "Add(%s, %x)"),
    "a condition may end it": ("%n", "_", "%f", "Add(%s, %x)"),
    "random numbers follow one another": ("%n", "_", "%on", "RandomUniformLike(%s) {seed=1.0}"),
}


@pytest.mark.parametrize("parts", STAYING.values(), ids=STAYING.keys())
def test_what_stays(parts: tuple[str, str, str, str]) -> None:
    count, first, flag, step = parts
    graph = load(
        "graph main(%x: f32[2], %m: i64[], %f: bool[]) { %n = constant i64[] [2]\n"
        f"%y = Loop({count}, {first}, %x) {{body=graph b(%i: i64[], %on: bool[], %s: f32[2]) {{"
        f"%t = {step}\n return {flag}, %t }} }}\n return %y }}"
    )
    assert not unrolled(graph)
    assert left(graph) == ["Loop"]


def test_sizes_that_data_decides_differ_from_round_to_round() -> None:
    graph = load("""
    graph main(%x: f32[4]) {
      %n = constant i64[] [2]
      %y = Loop(%n, _, %x) {body=graph b(%i: i64[], %on: bool[], %s: f32[K]) {
        %f = Cast(%i) {to=f32}
        %c = Greater(%s, %f)
        %t = Compress(%s, %c)
        return %on, %t
      }}
      return %y
    }""")
    given = {"x": np.array([-1, 0.5, 2, 3], np.float32)}
    before = run(graph, given)["y"]
    assert unrolled(graph)
    first, last = (node.output.shape for node in graph.nodes if node.op == "Compress")
    assert first != last
    np.testing.assert_array_equal(run(graph, given)["y"], before)


def test_a_slice_from_the_number_of_the_round_is_one_row() -> None:
    graph = load("""
    graph main(%x: f32[3, 2]) {
      %n = constant i64[] [3]
      %one = constant i64[] [1]
      %axis = constant i64[1] [0]
      %k = constant f32[1, 2] [0.0, 0.0]
      %y = Loop(%n, _, %k) {body=graph b(%i: i64[], %on: bool[], %s: f32[1, 2]) {
        %end = Add(%i, %one)
        %row = Slice(%x, %i, %end, %axis)
        %t = Add(%s, %row)
        return %on, %t
      }}
      return %y
    }""")
    assert unrolled(graph)
    given = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    np.testing.assert_array_equal(run(graph, given)["y"], [[6, 9]])


# Each round puts one more row of x into a list, and does something to a state beside it.
LISTING = """
graph main(%x: f32[2, 3], %w: TYPE) {{
  %n = constant i64[] [{rounds}]
  %empty = SequenceEmpty() {{dtype=f32}}
  %last, %y = Loop(%n, _, %w, %empty) {{body=graph b(
      %i: i64[], %on: bool[], %s: TYPE, %list: seq<f32[*]>) {{
    %t = {op}
    %more = SequenceInsert(%list, %x)
    return %on, %t, %more
  }}}}
  %at = constant i64[] [-1]
  %z = SequenceAt(%y, %at)
  return %last, %z
}}
"""


@pytest.mark.parametrize(
    ("rounds", "kind", "op", "short"),
    [
        (PYTHON.rounds, "f32[2]", "Neg(%s)", True),
        (PYTHON.rounds + 1, "f32[2]", "Neg(%s)", False),
        (NATIVE.rounds, "str[2]", "StringConcat(%s, %s)", True),
        (NATIVE.rounds + 1, "str[2]", "StringConcat(%s, %s)", False),
    ],
)
def test_what_runs_in_python_may_be_longer_but_for_text(
    rounds: int, kind: str, op: str, short: bool
) -> None:
    graph = load(LISTING.format(rounds=rounds, op=op).replace("TYPE", kind))
    assert unrolled(graph) is short
