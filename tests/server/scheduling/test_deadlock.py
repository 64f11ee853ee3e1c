"""Which processes wait for each other for ever."""

import pytest

from tuili.server.scheduling.deadlock import AnyOf, Shortage, Turns, deadlocked


@pytest.mark.parametrize(
    ("waiting", "dead"),
    [
        ({}, ""),
        ({"a": [{"b"}]}, ""),
        ({"a": [{"a"}]}, "a"),
        ({"a": [{"a", "b"}]}, ""),
        ({"a": [{"b"}], "b": [{"a"}]}, "ab"),
        ({"a": [{"b"}], "b": [{"a", "c"}]}, ""),
        ({"a": [{"b"}], "b": [{"a", "c"}], "c": [{"b"}]}, "abc"),
        ({"a": [{"b"}, {"c"}], "b": [{"a"}]}, "ab"),
        ({"a": [{"a"}], "b": [{"c"}], "c": [{"d"}]}, "a"),
        ({"a": [{"a"}], "b": [{"a"}]}, "ab"),
        ({"a": [{None}]}, ""),
        ({"a": []}, ""),
    ],
)
def test_who_can_never_go_on(waiting, dead):
    needs = {process: [AnyOf(need) for need in of_it] for process, of_it in waiting.items()}
    assert deadlocked(needs) == set(dead)


def turn(process, *holders, missing=1):
    return process, [Shortage(missing, holders)] if holders else []


@pytest.mark.parametrize(
    ("turns", "dead"),
    [
        ([turn("idle")], ""),
        ([turn("a")], "a"),
        ([turn("idle", ("a", 1))], "a"),
        ([turn("idle", ("a", 1), ("c", 1))], ""),
        ([turn("idle", ("a", 1), ("c", 1), missing=2)], "a"),
        ([turn("idle", ("a", 1), ("c", 2), missing=2)], ""),
        ([turn("idle", (None, 1))], ""),
        ([turn("idle", ("a", 1)), turn("idle")], ""),
        ([turn("idle", ("a", 1)), turn("a")], "a"),
        ([("idle", [Shortage(1, [("c", 1)]), Shortage(1, [("a", 1)])])], "a"),
    ],
)
def test_who_waits_for_what_those_hold_who_wait_for_it(turns, dead):
    assert deadlocked({"a": [AnyOf({"idle"}), Turns(turns)]}) == set(dead)
