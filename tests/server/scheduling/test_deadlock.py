"""Which processes wait for each other for ever."""

import pytest

from tuili.server.scheduling.deadlock import deadlocked


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
    assert deadlocked(waiting) == set(dead)
