"""What a roll-out costs a request: nanoseconds of the look-up without one, and of each decision.

python -m benchmarks.rollout_router
"""

from __future__ import annotations

import timeit

from tuili.server.rollout.plan import Plan, Routing, Rule, Step
from tuili.server.rollout.router import Router


class Request:
    """A request with a user, and no field that any rule asks for."""

    def __init__(self, user: str) -> None:
        self._user = user

    def header(self, name: str) -> str:
        """Only the user's."""
        return self._user if name == "x-user-id" else ""

    def parameter(self, name: str) -> str:
        """None."""
        return ""

    def address(self) -> str:
        """A peer."""
        return "192.0.2.7"


def main() -> None:
    """Time each kind of decision; the best of five."""
    live = {"m": {"": object(), "1": object()}}
    rules = (Rule("candidate", header="x-team=a"), Rule("candidate", cidr=("10.0.0.0/8",)))
    plans = {
        "user hash": (Plan("m", {"candidate": 2}, steps=(Step(weight=5),)), "u1"),
        "chance": (Plan("m", {"candidate": 2}, steps=(Step(weight=5),)), ""),
        "two rules, then user hash": (
            Plan("m", {"candidate": 2}, steps=(Step(weight=5),), routing=Routing(rules=rules)),
            "u1",
        ),
    }

    def lookup() -> object:
        versions = live.get("m")
        return versions.get("") if versions else None

    print(f"{'no roll-out: the look-up that every request makes':52} {_ns(lookup):6.0f} ns")
    for name, (plan, user) in plans.items():
        router = Router(plan, lambda: 0.5)
        router.deal({"candidate": 5.0})
        asked = Request(user)
        cost = _ns(lambda router=router, asked=asked: router.choose(asked))
        print(f"{'a roll-out under way: ' + name:52} {cost:6.0f} ns")


def _ns(function: object) -> float:
    count = 20_000
    return min(timeit.repeat(function, number=count, repeat=5)) / count * 1e9  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
