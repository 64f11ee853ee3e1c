"""Loop and Scan in native code: every graph beside its NumPy meaning, which knows no memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

import tuili
from tuili.errors import InvalidArgument
from tuili.importers.onnx import import_model
from tuili.limits import Limits
from tuili.ops.infer import infer
from tuili.ops.interpret import run as interpret

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'

# A body that doubles a growing state while its sum is below `end`; parts of known shape.
GROWING = """g (float[n] x, float end) => (float[m] last, float[k, 1] sums) {
    always = Constant<value = bool {1}>()
    last, sums = Loop<body = b (int64 i, bool go, float[w] s)
        => (bool more, float[v] t, float[1] p)
    {
        t = Concat<axis = 0>(s, x)
        p = ReduceSum<keepdims = 1>(t)
        q = Squeeze(p)
        more = Less(q, end)
    }>(, always, x)
}"""

# a, b = b, a + b: each state is returned in the place of another.
SWAPPING = """g (float[n] x, float[n] y, int64 rounds) => (float[n] a, float[n] b) {
    a, b = Loop<body = f (int64 i, bool go, float[n] p, float[n] q)
        => (bool more, float[n] r, float[n] s)
    {
        more = Identity(go)
        r = Identity(q)
        s = Add(p, q)
    }>(rounds, , x, y)
}"""

# Rounds within rounds, of a number that depends on the outer one; reads values of outer scopes.
NESTED = """g (float[n] x, int64 rounds) => (float[n] y, float[k, n] all) {
    one = Constant<value = int64 {1}>()
    y, all = Loop<body = outer (int64 i, bool go, float[n] s) => (bool more, float[n] t, float[n] u)
    {
        more = Identity(go)
        count = Add(i, one)
        t, parts = Loop<body = inner (int64 j, bool go2, float[n] v)
            => (bool more2, float[n] w, float[n] z)
        {
            more2 = Identity(go2)
            c = Cast<to = 1>(count)
            d = Mul(x, c)
            w = Add(v, d)
            z = Mul(w, s)
        }>(count, , s)
        axes = Constant<value = int64[1] {0}>()
        u = ReduceMax<keepdims = 0>(parts, axes)
    }>(rounds, , x)
}"""

# Each round takes one of two branches, one of which loops.
BRANCHING = """g (float[n] x, int64 rounds) => (float[n] y) {
    two = Constant<value = int64 {2}>()
    y = Loop<body = b (int64 i, bool go, float[n] s) => (bool more, float[n] t)
    {
        more = Identity(go)
        odd = Mod(i, two)
        is_odd = Cast<to = 9>(odd)
        t = If<then_branch = left () => (float[n] l) {
            l = Loop<body = deep (int64 j, bool go2, float[n] v) => (bool more2, float[n] w) {
                more2 = Identity(go2)
                w = Add(v, x)
            }>(i, , s)
        }, else_branch = right () => (float[n] r) { r = Neg(s) }>(is_odd)
    }>(rounds, , x)
}"""

# The number of the round and a state decide shapes.
SLICED = """g (float[n] x, int64 rounds) => (float[m] rest, float[k] firsts) {
    one = Constant<value = int64[1] {1}>()
    most = Constant<value = int64[1] {1000}>()
    rest, parts = Loop<body = b (int64 i, bool go, float[w] s)
        => (bool more, float[v] t, float[1] f)
    {
        more = Identity(go)
        t = Slice(s, one, most)
        zero = Constant<value = int64[1] {0}>()
        at = Reshape(i, one)
        end = Add(at, one)
        head = Slice(x, zero, end)
        f = ReduceSum<keepdims = 1>(head)
    }>(rounds, , x)
    flat = Constant<value = int64[1] {-1}>()
    firsts = Reshape(parts, flat)
}"""

# Parts whose size the data decides, the same in all rounds.
LATE_PARTS = """g (float[n] x, int64 rounds) => (float[k, m] parts, int64[2] shape) {
    parts = Loop<body = b (int64 i, bool go) => (bool more, float[w] p)
    {
        more = Identity(go)
        zero = Constant<value = float {0}>()
        wanted = Greater(x, zero)
        kept = Compress<axis = 0>(x, wanted)
        f = Cast<to = 1>(i)
        p = Add(kept, f)
    }>(rounds, )
    shape = Shape(parts)
}"""

SCAN = """g (float[n] s, float[r, t, c] x, float[t, n] z)
    => (float[n] last, float[n, t] sums, float[t, c, r] turned)
{
    last, sums, turned = Scan<num_scan_inputs = 2, scan_input_axes = [1, 0],
        scan_input_directions = [0, 1], scan_output_axes = [1, 0], scan_output_directions = [0, 1],
        body = b (float[n] a, float[r, c] p, float[n] q) => (float[n] d, float[n] e, float[c, r] f)
    {
        d = Add(a, q)
        e = Mul(d, s)
        f = Transpose(p)
    }>(s, x, z)
}"""

LARGE = """g (float[n] x, int64 rounds) => (float[n] y, float[k, n] all) {
    y, all = Loop<body = b (int64 i, bool go, float[n] s) => (bool more, float[n] t, float[n] u)
    {
        more = Identity(go)
        t = Sin(s)
        u = Sub(s, t)
    }>(rounds, , x)
}"""

rng = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def number(value: int) -> Any:
    return np.array(value, np.int64)


CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "growing": (
        GROWING,
        [{"x": np.ones(n, np.float32), "end": np.array(end, np.float32)}
         for n, end in ((1, 3.0), (4, 900.0), (7, 0.0), (2, 31.0))],
    ),
    "swapping": (
        SWAPPING,
        [{"x": normal(5), "y": normal(5), "rounds": number(r)} for r in (0, 1, 2, 9)],
    ),
    "nested": (NESTED, [{"x": normal(3), "rounds": number(r)} for r in (4, 0, 1)]),
    "branching": (BRANCHING, [{"x": normal(6), "rounds": number(r)} for r in (0, 1, 5)]),
    "sliced": (SLICED, [{"x": normal(9), "rounds": number(r)} for r in (0, 3, 9, 12)]),
    "late parts": (LATE_PARTS, [{"x": normal(20), "rounds": number(r)} for r in (1, 4)]),
    "scan": (
        SCAN,
        [{"s": normal(3), "x": normal(2, t, 4), "z": normal(t, 3)} for t in (5, 1, 0)],
    ),
    "large": (LARGE, [{"x": normal(n), "rounds": number(6)} for n in (300_000, 8)]),
}  # fmt: skip


def compiled(text: str, folder: Path, **options: Any) -> Any:
    artifact = tuili.compile(parser.parse_model(HEAD + text), folder / "m.tuili")
    return artifact, tuili.load(artifact.path, **options)


def meaning(text: str, feeds: Mapping[str, Any]) -> dict[str, Any]:
    graph = import_model(parser.parse_model(HEAD + text))
    infer(graph)
    return interpret(graph, feeds)


@pytest.mark.parametrize("name", CASES)
def test_rounds_agree_with_their_meaning_on_any_number_of_threads(
    name: str, tmp_path: Path
) -> None:
    text, inputs = CASES[name]
    artifact, model = compiled(text, tmp_path)
    threaded = tuili.load(artifact.path, threads=2)
    assert not [step for step in artifact.manifest.host_steps if step.startswith(("Loop", "Scan"))]
    for feeds in (*inputs, *inputs):
        want = meaning(text, feeds)
        for runner in (model, threaded):
            got = runner.run(feeds)
            for output, array in want.items():
                assert got[output].shape == array.shape
                np.testing.assert_allclose(got[output], array, rtol=2e-5, atol=2e-5)


ENDLESS = """g (float x) => (float y) {
    y = Loop<body = b (int64 i, bool go, float s) => (bool more, float t) {
        more = Identity(go)
        t = Add(s, x)
    }>(, , x)
}"""

EXPLODING = """g (float[n] x) => (float[m] y) {
    y = Loop<body = b (int64 i, bool go, float[w] s) => (bool more, float[w2] t) {
        more = Identity(go)
        t = Concat<axis = 0>(s, s)
    }>(, , x)
}"""

REQUESTED = """g (int64[2] shape) => (float[n, m] y) {
    y = ConstantOfShape(shape)
}"""

RAGGED = """g (float[n] x, int64 rounds) => (float[k, m] parts) {
    parts = Loop<body = b (int64 i, bool go) => (bool more, float[w] p) {
        more = Identity(go)
        one = Constant<value = int64[1] {1}>()
        zero = Constant<value = int64[1] {0}>()
        end = Reshape(i, one)
        p = Slice(x, zero, end)
    }>(rounds, )
}"""


@pytest.mark.parametrize(
    ("text", "limits", "feeds", "message"),
    [
        (ENDLESS, Limits(loop_rounds=1000), {"x": np.float32(1)}, r"Loop node.* 1000 rounds"),
        (ENDLESS, Limits(0, 0.05), {"x": np.float32(1)}, r"Loop node.* not ended after 0.05 s"),
        (EXPLODING, Limits(data_bytes=1 << 20), {"x": normal(3)}, r"'t', whose .* needs 786432"),
        (REQUESTED, Limits(data_bytes=1 << 20), {"shape": np.array([1 << 20, 1 << 20])},
         r"'y', whose shape depends on data, needs 4398046511104 bytes; .* may take 1048576"),
        (REQUESTED, None, {"shape": np.array([1 << 30, 1 << 29])}, r"'y', .*limit data_bytes"),
        (REQUESTED, None, {"shape": np.array([1 << 40, 1 << 40])}, r"'y', .*limit data_bytes"),
        (RAGGED, None, {"x": normal(9), "rounds": number(3)}, r"parts of 'parts' differ in shape"),
    ],
    ids=["rounds", "time", "growing", "request", "default limit", "overflow", "ragged"],
)  # fmt: skip
def test_a_run_past_its_limits_says_what_was_too_much(
    text: str, limits: Limits | None, feeds: Any, message: str, tmp_path: Path
) -> None:
    _, model = compiled(text, tmp_path, limits=limits)
    feeds = {name: np.asarray(array) for name, array in feeds.items()}
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=message):
            model.run(feeds)
