"""Who gets which variant: the order of the rules, the evenness of the hash, ramps that only add."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.errors import InvalidArgument
from tuili.server.rollout.plan import Plan, Routing, Rule, Step
from tuili.server.rollout.router import PLACES, Router, place_of
from tuili.server.rollout.sticky import Users


@dataclass
class Request:
    headers: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    peer: str = "10.0.0.1"

    def header(self, name):
        return self.headers.get(name, "")

    def parameter(self, name):
        return self.parameters.get(name, "")

    def address(self):
        return self.peer


def router(weights=None, candidates=None, chance=lambda: 0.999, **routing):
    candidates = candidates or {"candidate": 2}
    steps = tuple(Step(weight=100 / len(candidates)) for _ in range(2))
    plan = Plan(model="m", name="r", candidates=candidates, steps=steps, kind="ab",
                routing=Routing(**routing))  # fmt: skip
    made = Router(plan, chance)
    made.deal(weights or {})
    return made


def by_user(made, user):
    return made.choose(Request({"x-user-id": user})).variant


RULES = (
    Rule("candidate", header="x-team=search"),
    Rule("candidate", parameter="beta"),
    Rule("candidate", cidr=("192.168.0.0/16", "2001:db8::/32")),
    Rule("candidate", country=("de", "FR")),
    Rule("stable", header="x-team"),
)


@pytest.mark.parametrize(
    ("request_", "variant", "reason"),
    [
        (Request({"x-tuili-variant": "candidate", "x-team": "other"}), "candidate", "asked"),
        (Request(parameters={"tuili_variant": "stable"}), "stable", "asked"),
        (Request({"x-team": "search"}), "candidate", "rule"),
        (Request({"x-team": "ads"}), "stable", "rule"),
        (Request(parameters={"beta": "1"}), "candidate", "rule"),
        (Request(peer="192.168.3.4"), "candidate", "rule"),
        (Request(peer="::ffff:192.168.3.4"), "candidate", "rule"),
        (Request(peer="2001:db8::1"), "candidate", "rule"),
        (Request({"x-country": "de"}), "candidate", "rule"),
        (Request({"x-country": "US", "x-user-id": "u"}), "stable", "user"),
        (Request(), "stable", "random"),
        (Request(peer="not an address"), "stable", "random"),
    ],
)
def test_the_first_rule_that_holds_decides(request_, variant, reason):
    choice = router(rules=RULES).choose(request_)
    assert (choice.variant, choice.reason) == (variant, reason)


def test_all_conditions_of_a_rule_must_hold():
    made = router(rules=(Rule("candidate", header="x-team=a", country=("DE",)),))
    assert made.choose(Request({"x-team": "a"})).variant == "stable"
    assert made.choose(Request({"x-team": "a", "x-country": "DE"})).variant == "candidate"


def test_a_trusted_proxy_tells_the_address():
    made = router(
        rules=(Rule("candidate", cidr=("10.9.0.0/16",)),), address_header="x-forwarded-for"
    )
    assert made.choose(Request({"x-forwarded-for": "1.2.3.4, 10.9.1.1"})).variant == "candidate"
    assert made.choose(Request({"x-forwarded-for": "10.9.1.1, 1.2.3.4"})).variant == "stable"


@pytest.mark.parametrize(
    ("routing", "text"),
    [
        ({"user": "cookie"}, "must be header:NAME or parameter:NAME, got 'cookie'"),
        ({"rules": (Rule("candidate"),)}, "has no condition"),
        ({"rules": (Rule("candidate", cidr=("10.0.0.1/8",)),)}, "'10.0.0.1/8' is no network"),
    ],
)
def test_routing_that_means_nothing_is_refused(routing, text):
    with pytest.raises(InvalidArgument, match=text):
        router(**routing)


def test_a_variant_that_is_not_there_is_refused():
    with pytest.raises(InvalidArgument, match="asks for variant 'v9'; there are candidate, stable"):
        router().choose(Request({"x-tuili-variant": "v9"}))


@settings(max_examples=5, deadline=None)
@given(st.text(max_size=12))
def test_users_are_spread_evenly_whatever_the_salt(salt):
    """Chi-square over 100 bins of 20,000 users; the bound is passed by chance once in 10^6."""
    places = np.array([place_of(salt, f"user-{i}") for i in range(20_000)])
    counts = np.bincount(places * 100 // PLACES, minlength=100)
    assert float(((counts - 200.0) ** 2 / 200.0).sum()) < 176


@given(st.text(), st.floats(0, 100))
def test_a_user_keeps_the_variant(user, weight):
    if user:
        first, second = router({"candidate": weight}), router({"candidate": weight})
        assert by_user(first, user) == by_user(second, user)


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=20),
    st.lists(st.floats(0, 100 / 3), min_size=2, max_size=6),
)
def test_ramps_only_add_users(users, weights):
    """Who is in at a smaller weight stays with the same candidate at every larger one."""
    made = router(candidates={"a": 2, "b": 3, "c": 4})
    before = dict.fromkeys(users, "stable")
    for weight in sorted(weights):
        made.deal({"a": weight, "b": weight, "c": weight})
        now = {user: by_user(made, user) for user in users}
        assert all(before[user] in ("stable", now[user]) for user in users)
        before = now


@pytest.mark.parametrize("weight", [0, 5, 20, 33.33])
def test_weights_are_the_shares_of_users(weight):
    made = router({"a": weight, "b": weight, "c": weight}, {"a": 2, "b": 3, "c": 4})
    found = [by_user(made, str(i)) for i in range(20_000)]
    for name, share in made.shares().items():
        assert found.count(name) / 20_000 == pytest.approx(share, abs=0.012)


def test_another_salt_deals_anew():
    one, other = (router({"candidate": 50}, salt=salt) for salt in ("a", "b"))
    same = sum(by_user(one, str(i)) == by_user(other, str(i)) for i in range(2000))
    assert 900 < same < 1100


def test_a_sequence_never_changes_whatever_its_requests_say():
    made = router({"candidate": 100}, rules=RULES)
    for asked in (Request({"x-tuili-variant": "candidate"}), Request({"x-team": "search"})):
        assert made.choose(asked, "stable").reason == "sequence"
        assert made.choose(asked, "stable").variant == "stable"


def test_a_user_counts_once_a_step():
    users = Users()
    assert [users.is_new(each) for each in ("a", "b", "a")] == [True, True, False]
    users.clear()
    assert users.is_new("a")
