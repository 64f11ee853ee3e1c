"""One request in a Dag with conditions: branches, skipped steps, joins."""

from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.conditions import parse
from tuili.server.scheduling.dag import Dag, Step
from tuili.server.scheduling.flow import Flow


def step(name, needs, makes, *when):
    return Step(
        name, "", {t: t for t in needs}, {t: t for t in makes}, tuple(map(parse, when)), name
    )


BRANCHES = Dag(
    "p",
    ["x"],
    ["out"],
    [
        step("count", ["x"], ["n"]),
        step("many", ["x"], ["a"], "n > 1"),
        step("few", ["x"], ["b"], "n <= 1"),
        step("after", ["a"], ["c"]),
    ],
    {"out": ("c", "b")},
)


def flow(values, dag=BRANCHES, outputs=("out",)):
    return Flow(dag, outputs, values.__getitem__)


def test_a_branch_whose_condition_fails_is_skipped_with_all_that_needs_it():
    one = flow({"n": 1})
    assert one.arrived(["x"]) == [0]
    assert one.arrived(["n"]) == [2]
    assert not one.done()
    one.arrived(["b"])
    assert one.done()
    assert one.source_of("out") == "b"


def test_the_other_branch_runs_through():
    one = flow({"n": 5})
    one.arrived(["x"])
    assert one.arrived(["n"]) == [1]
    assert one.arrived(["a"]) == [3]
    one.arrived(["c"])
    assert one.done()
    assert one.source_of("out") == "c"


def test_an_output_that_nothing_makes_is_missing():
    dag = Dag("p", ["x"], ["y"], [step("a", ["x"], ["y"], "x > 0")])
    one = flow({"x": 0}, dag, ["y"])
    assert one.arrived(["x"]) == []
    assert one.done()
    assert one.missing() == ["y"]


def test_a_merge_takes_the_first_written_that_is_there_whatever_came_first():
    dag = Dag(
        "p", ["x"], ["y"],
        [step("a", ["x"], ["a"]), step("b", ["x"], ["b"])],
        {"y": ("a", "b")},
    )  # fmt: skip
    one = flow({}, dag, ["y"])
    one.arrived(["x"])
    one.arrived(["b"])
    assert not one.done()
    one.arrived(["a"])
    assert one.source_of("y") == "a"


def test_merges_of_merges_point_at_the_data():
    dag = Dag("p", ["x"], ["z"], [step("a", ["x"], ["a"])], {"y": ("a",), "z": ("y",)})
    one = flow({}, dag, ["z"])
    one.arrived(["x"])
    one.arrived(["a"])
    assert one.source_of("z") == "a"


def test_tensors_that_a_merge_may_stand_for_are_kept():
    one = flow({"n": 1})
    one.arrived(["x"])
    one.arrived(["n"])
    assert "b" not in one.free(2)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.randoms())
def test_every_request_ends_whatever_the_conditions_say(truths, random):
    """A chain in which every step may be skipped, with a default beside it."""
    steps, merges, last = [], {}, "x"
    for at in range(len(truths)):
        steps.append(step(f"s{at}", [last], [f"t{at}"], f"c{at}"))
        merges[f"m{at}"] = (f"t{at}", last)
        last = f"m{at}"
    conditions = [f"c{at}" for at in range(len(truths))]
    random.shuffle(steps)
    dag = Dag("p", ["x", *conditions], [last], steps, merges)
    one = Flow(dag, [last], dict(zip(conditions, truths, strict=True)).__getitem__)
    waiting = one.arrived(["x", *conditions])
    ran = []
    while waiting:
        at = waiting.pop(random.randrange(len(waiting)))
        ran.append(dag.steps[at].name)
        waiting += one.arrived(dag.steps[at].makes.values())
    assert one.done()
    assert sorted(ran) == [f"s{at}" for at, truth in enumerate(truths) if truth]
    taken = [at for at, truth in enumerate(truths) if truth]
    assert one.source_of(last) == (f"t{taken[-1]}" if taken else "x")
