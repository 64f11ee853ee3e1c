"""From decisions to questions, and from times of nodes to answers."""

from __future__ import annotations

from tuili.bench.tune.problems import Question, answers, questions, variant
from tuili.codegen.tuning import Times
from tuili.lower.choice import Decision

TWO, THREE = ("a", "b"), ("a", "b", "c")


def test_each_problem_is_asked_about_once_and_known_ones_never() -> None:
    decisions = {
        "n1": Decision("p", TWO, "a"),
        "n2": Decision("known", TWO, "a"),
        "n3": Decision("p", TWO, "a"),
        "n4": Decision("q", THREE, "a"),
    }
    known = Times({"known": {"a": 1, "b": 2}, "q": {"a": 1, "b": 2}})
    assert questions(decisions, known) == [
        Question("p", TWO, ("n1", "n3")),
        Question("q", THREE, ("n4",)),
    ]


def test_a_variant_takes_the_plans_of_its_place() -> None:
    pick = variant(2, [Question("p", THREE, ()), Question("short", TWO, ())])
    assert [pick(problem, THREE)[0] for problem in ("p", "not asked")] == ["c", "a"]
    assert pick("short", TWO)[0] == "a"


def test_the_answer_is_the_mean_of_the_nodes() -> None:
    asked = [Question("p", TWO, ("n1", "n2")), Question("q", TWO, ("n3",))]
    times = [{"n1": 10, "n2": 20, "n3": 5}, {"n1": 30, "n2": 10, "n3": 6}]
    assert answers(asked, times) == {"p": {"a": 15, "b": 20}, "q": {"a": 5, "b": 6}}


def test_what_no_run_reaches_has_no_answer() -> None:
    asked = [Question("p", TWO, ("n1", "n2"))]
    assert answers(asked, [{"n1": 10}, {"n1": 10, "n2": 10}]) == {}
