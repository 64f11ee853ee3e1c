"""Ensembles as graphs: what is refused, and in which order steps may start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidModel
from tuili.server.scheduling.dag import Dag, Step
from tuili.server.scheduling.flow import Flow


def step(model, needs, makes):
    return Step(model, "", {f"i_{n}": n for n in needs}, {f"o_{m}": m for m in makes})


DIAMOND = Dag(
    "e",
    ["x"],
    ["y"],
    [
        step("join", "ab", "y"),
        step("left", "x", "a"),
        step("right", "x", "b"),
        step("spare", "x", "s"),
    ],
)


def test_steps_start_when_their_tensors_are_there_whatever_their_order():
    flow = Flow(DIAMOND, ["y"])
    assert flow.arrived(["x"]) == [1, 2]
    assert flow.arrived(["b"]) == []
    assert flow.arrived(["a"]) == [0]
    assert not flow.done()
    flow.arrived(["y"])
    assert flow.done()


def test_only_what_the_outputs_need_is_run():
    both = Dag("e", ["x"], ["y", "z"], [step("a", "x", "y"), step("b", "x", "z")])
    assert Flow(both, ["z"]).arrived(["x"]) == [1]


def test_tensors_are_let_go_after_their_last_use():
    flow = Flow(DIAMOND, ["y"])
    flow.arrived(["x"])
    assert flow.free(1) == ["x"]
    flow.arrived(["a", "b"])
    assert sorted(flow.free(0)) == ["a", "b"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "steps", "text"),
    [
        ("x", "y", [step("a", "x", "z")], "no step makes the output 'y'"),
        ("x", "y", [step("a", "q", "y")], r"step 0 \('a'\) needs tensor 'q', which nothing makes"),
        (
            "x",
            "y",
            [step("a", "x", "y"), step("b", "x", "y")],
            "tensor 'y' is made twice, the second",
        ),
        ("x", "y", [step("a", "x", "x")], "tensor 'x' is made twice"),
        ("xq", "y", [step("a", "x", "y")], "no step uses the input 'q'"),
        ("x", "y", [step("a", "xb", "y"), step("b", "y", "b")], "these steps wait for each other"),
        ("x", "y", [step("a", "", "y")], "maps no input or output"),
    ],
)
def test_graphs_that_cannot_work(inputs, outputs, steps, text):
    with pytest.raises(InvalidModel, match=text):
        Dag("e", inputs, outputs, steps)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.randoms())
def test_every_step_of_any_chain_runs_once(sources, random):
    tensors = ["t0"]
    steps = []
    for at, source in enumerate(sources, 1):
        steps.append(step(f"m{at}", [tensors[source % len(tensors)]], [f"t{at}"]))
        tensors.append(f"t{at}")
    steps.append(step("end", tensors[1:], ["y"]))
    shuffled = list(steps)
    random.shuffle(shuffled)
    dag = Dag("e", ["t0"], ["y"], shuffled)
    flow = Flow(dag, ["y"])
    waiting, ran = flow.arrived(["t0"]), []
    while waiting:
        at = waiting.pop(random.randrange(len(waiting)))
        ran.append(at)
        waiting += flow.arrived(dag.steps[at].makes.values())
    assert flow.done()
    assert sorted(ran) == list(range(len(steps)))
