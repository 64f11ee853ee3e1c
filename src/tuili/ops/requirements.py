"""Requirements: what a shape rule takes for granted of sizes that only the run knows."""

from __future__ import annotations

from dataclasses import dataclass

from tuili.tensors import Dim


@dataclass(frozen=True, slots=True)
class Requirement:
    """Two dims that must be equal; with `or_one`, either may be 1 instead, as in broadcasting.

    With `or_more`, the left one may also be larger.
    """

    label: str  # the node, for the message
    left: Dim
    right: Dim
    what: str
    or_one: bool = False
    or_more: bool = False

    @property
    def rule(self) -> tuple[Dim, Dim, bool, bool]:
        """All of it but who asks and how it is told."""
        return self.left, self.right, self.or_one, self.or_more

    @property
    def expected(self) -> str:
        """The rule, as the end of a sentence."""
        if self.or_more:
            return "the first must not be smaller"
        return "they must be equal" + (" or one of them 1, and none 0" if self.or_one else "")
