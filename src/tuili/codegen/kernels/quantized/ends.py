"""Ends: where the sums of a product begin, and what becomes of them, as C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Ends(Protocol):
    """Both ends of the sums of one product; `channel` and `full` are C texts of places."""

    def start(self, name: str, channel: str) -> str:
        """C that declares where V sums begin, those of the outputs from `channel` on."""
        ...

    def vector(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result of V sums in `acc`; see `Epilogue.vector`."""
        ...

    def scalar(self, acc: str, full: str, channel: str) -> tuple[list[str], str]:
        """Statements and the result of one sum in `acc`."""
        ...

    def store(self, place: str, result: str) -> str:
        """The C statement that stores V results."""
        ...

    def stores(self, accs: Sequence[str], full: str, channel: str) -> list[str]:
        """C that stores the results of sums that lie side by side from output `full` on."""
        ...
