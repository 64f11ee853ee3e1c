"""Steps that answer any number of times: what runs for each answer, and what is kept for it."""

from hypothesis import given
from hypothesis import strategies as st

from tuili.server.scheduling.branching import Branch
from tuili.server.scheduling.conditions import parse
from tuili.server.scheduling.dag import Dag, Step


def step(name, needs, makes, *when):
    return Step(
        name, "", {t: t for t in needs}, {t: t for t in makes}, tuple(map(parse, when)), name
    )


def root(dag, outputs=("y",)):
    return Branch(dag, outputs, lambda tensor, value: value)


TOKENS = Dag("e", ["x"], ["y"], [step("write", "x", "t"), step("read", "tx", "y")])


def test_each_answer_goes_on_alone_and_meets_what_was_there_before():
    top = root(TOKENS)
    assert top.arrived({"x": 5}) == [(top, 0)]
    top.began(0)
    first, second = top.opened(0), top.opened(0)
    assert first.arrived({"t": "a"}) == [(first, 1)]
    assert second.arrived({"t": "b"}) == [(second, 1)]
    assert [(b.value("t"), b.value("x")) for b in (first, second)] == [("a", 5), ("b", 5)]
    assert top.finished() == []
    second.arrived({"y": "B"})
    assert top.finished() == [second]


def test_the_nth_answers_of_two_steps_side_by_side_meet():
    pair = Dag("e", ["x"], ["y"], [step("a", "x", "p"), step("b", "x", "q"), step("j", "pq", "y")])
    top = root(pair)
    for _, at in top.arrived({"x": 0}):
        top.began(at)
    assert top.opened(0).arrived({"p": 1}) == []
    assert top.opened(0).arrived({"p": 2}) == []
    met = top.opened(1)
    assert met.arrived({"q": 10}) == [(met, 2)]
    assert (met.value("p"), met.value("q")) == (1, 10)


def test_what_comes_late_from_before_the_answers_reaches_all_of_them():
    late = Dag("e", ["x"], ["y"], [step("m", "x", "t"), step("s", "x", "u"), step("j", "tu", "y")])
    top = root(late)
    for _, at in top.arrived({"x": 0}):
        top.began(at)
    branches = [top.opened(0) for _ in range(3)]
    for n, branch in enumerate(branches):
        assert branch.arrived({"t": n}) == []
    assert top.arrived({"u": 7}) == [(branch, 2) for branch in branches]


def test_a_step_that_needs_none_of_the_answers_runs_once():
    side = Dag("e", ["x"], ["y", "z"], [step("m", "x", "y"), step("s", "x", "z")])
    top = root(side, ("y", "z"))
    assert [at for _, at in top.arrived({"x": 0})] == [0, 1]
    top.began(0)
    branch = top.opened(0)
    assert branch.arrived({"y": 1}) == []
    assert top.arrived({"z": 2}) == []
    assert top.finished() == [branch]


def test_a_condition_is_asked_of_each_answer():
    some = Dag("e", ["x"], ["y"], [step("m", "x", "t"), step("s", "t", "y", "t > 1")])
    top = root(some)
    top.arrived({"x": 0})
    top.began(0)
    few, many = top.opened(0), top.opened(0)
    assert few.arrived({"t": 1}) == []
    assert few.flow.missing() == ["y"]
    assert many.arrived({"t": 2}) == [(many, 1)]


def test_nothing_is_kept_of_answers_that_were_passed_on():
    top = root(TOKENS)
    top.arrived({"x": 0})
    top.began(0)
    for n in range(1000):
        branch = top.opened(0)
        branch.arrived({"t": n})
        branch.began(1)
        branch.arrived({"y": n})
        assert top.finished() == [branch]
        branch.answer(n)
        branch.ended(1)
        assert not top.branches
        assert top.collect() == [n]


def test_an_answer_whose_partner_never_comes_goes_with_the_last_step():
    pair = Dag("e", ["x"], ["y"], [step("a", "x", "p"), step("b", "x", "q"), step("j", "pq", "y")])
    top = root(pair)
    for _, at in top.arrived({"x": 0}):
        top.began(at)
    top.opened(0).arrived({"p": 1})
    top.ended(0)
    assert list(top.branches) == [0]
    top.ended(1)
    assert not top.branches


NESTED = Dag("e", ["x"], ["y"], [step("a", "x", "t"), step("b", "t", "y")])


@given(st.data())
def test_every_answer_of_every_answer_leaves_once_and_in_order(data):
    """`a` answers n times, and `b` n_i times to its ith answer; nothing is left in the end."""
    counts = data.draw(st.lists(st.integers(0, 3), max_size=4))
    top = root(NESTED)
    top.arrived({"x": 0})
    top.began(0)
    todo = {("a", None): len(counts)}
    opened, found, left = [], [], []
    while todo:
        key = data.draw(st.sampled_from(sorted(todo, key=str)))
        name, number = key
        branch = top if name == "a" else opened[number]
        if not todo[key]:
            del todo[key]
            branch.ended(0 if name == "a" else 1)
            continue
        todo[key] -= 1
        child = branch.opened(0 if name == "a" else 1)
        if name == "a":
            assert child.arrived({"t": len(opened)}) == [(child, 1)]
            child.began(1)
            todo["b", len(opened)] = counts[len(opened)]
            opened.append(child)
        else:
            child.arrived({"y": number})
            assert top.finished() == [child]
            found.append(child.value("t"))
            child.answer((number, todo["b", number]))
            left += top.collect()
    left += top.collect(everything=True)
    wanted = [n for n, count in enumerate(counts) for _ in range(count)]
    assert sorted(found) == wanted
    assert [n for n, _ in left] == wanted
    assert not top.branches
