"""Conditions: what they mean, and what is none."""

import pytest

from tuili.errors import ParseError
from tuili.server.scheduling.conditions import Condition, parse


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("find.count > 0", [1, 0.5, True], [0, -1, False]),
        ("find.count >= 2", [2, 3], [1]),
        ("x < -1.5", [-2], [-1.5, 0]),
        ("x <= 1e3", [1000], [1001]),
        ("x == 1", [1, 1.0, True], [0, 2, "1"]),
        ("x != 1", [0, "1"], [1]),
        ("found", [True, 3, "text"], [False, 0, ""]),
        ("not found", [False, 0, ""], [True, 3, "text"]),
        ("found == true", [True, 3], [False, 0]),
        ('lang.code == "en"', ["en"], ["de", "", 1]),
        ("lang.code != 'en'", ["de", 1], ["en"]),
    ],
)
def test_conditions(text, holds, fails):
    condition = parse(text)
    assert all(condition.holds(value) for value in holds)
    assert not any(condition.holds(value) for value in fails)


def test_the_tensor_may_have_a_name_with_a_path():
    assert parse("a.save/scale_0.tmp_1 > 2") == Condition("a.save/scale_0.tmp_1", ">", 2)


@pytest.mark.parametrize("text", ["", "a >", "> 1", "a > b", "a = 1", "not a > 1", "a > 1 and b"])
def test_what_is_no_condition(text):
    with pytest.raises(ParseError, match=r"is no condition: expected TENSOR"):
        parse(text)
