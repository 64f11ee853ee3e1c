"""Router: which variant a request goes to. Ordered rules, then a salted hash, then chance.

The order is fixed, first match wins:
1. the variant that the request's sequence already has: a sequence never changes,
2. what the client asks for (a header or parameter that names a variant),
3. the plan's rules over headers, parameters, addresses (CIDR) and countries,
4. a salted hash of the user: one of 10,000 places. Each candidate owns places from a start of its
   own onwards, and a larger weight only adds places; so who is in at 5 % stays in at 20 %,
5. chance.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tuili.errors import InvalidArgument
from tuili.server.rollout.plan import STABLE, Plan, Routing, Rule

PLACES: Final = 10_000
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Asked(Protocol):
    """What a router may look at of a request; "" stands for what is not there."""

    def header(self, name: str) -> str:
        """A header or metadata field by its lower-case name."""
        ...

    def parameter(self, name: str) -> str:
        """A request parameter as text."""
        ...

    def address(self) -> str:
        """The peer's address."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, why, and whom the choice is for: a user (counted once) or this request."""

    variant: str
    reason: str
    unit: str = ""

    @property
    def dealt(self) -> bool:
        """Whether the split dealt this out, so that it counts for shares and comparisons."""
        return self.reason in ("user", "random")


def place_of(salt: str, user: str) -> int:
    """The place of a user: the same for ever under one salt."""
    digest = hashlib.blake2b(f"{salt}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % PLACES


class Router:
    """Deals requests out by a plan; `weights` are percent by candidate, the stable has the rest."""

    def __init__(self, plan: Plan, chance: Callable[[], float]) -> None:
        self._routing = plan.routing
        self._names = (*plan.candidates, STABLE)
        self._salt = plan.routing.salt or f"{plan.model}|{plan.name}"
        self._chance = chance
        self._rules = [_compiled(rule, plan.routing) for rule in plan.routing.rules]
        self._user = _reader(plan.routing.user)
        # Where each candidate's places begin: after the most that those before it will ever have.
        most = {
            name: max((step.weight for step in plan.steps), default=0.0) for name in plan.candidates
        }
        self._starts: dict[str, int] = {}
        start = 0
        for name, weight in most.items():
            self._starts[name] = start
            start += round(weight * PLACES / 100)
        self._bounds: list[tuple[int, int, str]] = []
        self.weights: Mapping[str, float] = {}
        self.deal({})

    def deal(self, weights: Mapping[str, float]) -> None:
        """Set the weights: percent by candidate; those left out get nothing."""
        self.weights = dict(weights)
        self._bounds = [
            (self._starts[name], self._starts[name] + round(weight * PLACES / 100), name)
            for name, weight in weights.items()
            if weight > 0
        ]

    def shares(self) -> dict[str, float]:
        """The share that each variant should get of what is dealt out."""
        found = {name: (stop - start) / PLACES for start, stop, name in self._bounds}
        return {STABLE: 1 - sum(found.values()), **found}

    def choose(self, asked: Asked, sequence: str = "") -> Choice:
        """The variant of a request; `sequence` is the variant its sequence has, or ""."""
        if sequence:
            return Choice(sequence, "sequence")
        wanted = self._wanted(asked)
        if wanted:
            return Choice(wanted, "asked")
        for holds, variant in self._rules:
            if holds(asked):
                return Choice(variant, "rule")
        user = self._user(asked)
        if user:
            return Choice(self._at(place_of(self._salt, user)), "user", user)
        return Choice(self._at(int(self._chance() * PLACES)), "random")

    def _wanted(self, asked: Asked) -> str:
        routing = self._routing
        wanted = asked.header(routing.variant_header) or asked.parameter(routing.variant_parameter)
        if wanted and wanted not in self._names:
            raise InvalidArgument(
                f"the request asks for variant {wanted!r}; there are {', '.join(self._names)}"
            )
        return wanted

    def _at(self, place: int) -> str:
        for start, stop, name in self._bounds:
            if start <= place < stop:
                return name
        return STABLE


def _reader(source: str) -> Callable[[Asked], str]:
    """What reads the user of a request: "header:NAME" or "parameter:NAME"."""
    kind, _, name = source.partition(":")
    if kind == "header" and name:
        return lambda asked: asked.header(name.lower())
    if kind == "parameter" and name:
        return lambda asked: asked.parameter(name)
    raise InvalidArgument(f"routing.user must be header:NAME or parameter:NAME, got {source!r}")


def _compiled(rule: Rule, routing: Routing) -> tuple[Callable[[Asked], bool], str]:
    """A rule as one function."""
    conditions: list[Callable[[Asked], bool]] = []
    if rule.header:
        name, _, value = rule.header.partition("=")
        conditions.append(lambda asked: _matches(asked.header(name.lower()), value))
    if rule.parameter:
        key, _, wanted = rule.parameter.partition("=")
        conditions.append(lambda asked: _matches(asked.parameter(key), wanted))
    if rule.cidr:
        networks = [_network(text) for text in rule.cidr]
        conditions.append(lambda asked: _inside(_client(asked, routing), networks))
    if rule.country:
        countries = frozenset(country.upper() for country in rule.country)
        conditions.append(lambda asked: asked.header(routing.country_header).upper() in countries)
    if not conditions:
        raise InvalidArgument(f"a rule for variant {rule.variant!r} has no condition")
    return lambda asked: all(condition(asked) for condition in conditions), rule.variant


def _matches(found: str, wanted: str) -> bool:
    return found == wanted if wanted else bool(found)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"a rule's cidr {text!r} is no network: {error}") from error


def _client(asked: Asked, routing: Routing) -> str:
    """The client's address; behind a trusted proxy the last one that the proxy saw."""
    if routing.address_header:
        return asked.header(routing.address_header).rpartition(",")[2].strip()
    return asked.address()


def _inside(address: str, networks: list[Network]) -> bool:
    try:
        found: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
