"""Selection: which versions of a model are served, and which of them answers by default.

Without decisions of roll-outs and operators the model's version policy says it all, and the newest
version answers. A decided version takes the place of "the latest": what a roll-out has sent back is
not loaded again because its number is high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from tuili.server.repository.config import VersionPolicy

Running = TypeVar("Running")


class Selection(Generic[Running]):
    """What was decided; the conductor of roll-outs writes here, the repository reads."""

    def __init__(self) -> None:
        self.pointers: dict[str, int] = {}
        # Versions that are loaded too: candidates, labelled ones, the one to roll back to.
        self.beside: dict[str, frozenset[int]] = {}
        # What answers for a model in place of any single version, while a roll-out runs.
        self.fronts: dict[str, Running] = {}
        self._policies: dict[str, VersionPolicy] = {}

    def versions(self, model: str, policy: VersionPolicy, there: Sequence[int]) -> list[int]:
        """The versions to serve of those that are there, ascending."""
        self._policies[model] = policy
        pointer = self.pointers.get(model)
        chosen = set(policy.select(there))
        if pointer in there:
            assert pointer is not None
            by_number = policy.all or policy.specific
            chosen = chosen | {pointer} if by_number else {pointer}
        return sorted(chosen | (self.beside.get(model, frozenset()) & set(there)))

    def keeps(self, model: str, version: int, there: Sequence[int]) -> bool:
        """Whether a loaded version is still wanted."""
        policy = self._policies.get(model)
        return policy is None or version in self.versions(model, policy, there)

    def default(self, model: str, versions: Mapping[str, Running]) -> Running:
        """What answers a request that names no version."""
        front = self.fronts.get(model)
        if front is not None:
            return front
        pointer = str(self.pointers.get(model, ""))
        if pointer and pointer in versions:
            return versions[pointer]
        return versions[max((version for version in versions if version), key=int)]
