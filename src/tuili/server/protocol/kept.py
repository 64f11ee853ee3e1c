"""Kept: what a request to a pipeline keeps to, from its first step of a model to its end."""

from __future__ import annotations

from typing import Any, Protocol


class Version(Protocol):
    """A model version that stays for as long as somebody holds it."""

    def hold(self) -> None: ...
    def release(self) -> None: ...


class Kept:
    """The versions, and the variants of roll-outs, that the steps of one request have met."""

    __slots__ = ("_is_over", "_versions", "variants")

    def __init__(self) -> None:
        self.variants: dict[str, str] = {}
        self._versions: dict[tuple[str, str], Any] = {}
        self._is_over = False

    def met(self, model: str, version: str) -> Any:
        """The version that an earlier step met under these names, or None."""
        return self._versions.get((model, version))

    def meet(self, model: str, version: str, found: Version) -> None:
        """This is the version for all steps that come."""
        if not self._is_over:
            found.hold()
            self._versions[model, version] = found

    def release(self) -> None:
        """The request has ended, in whichever way."""
        self._is_over = True
        versions, self._versions = self._versions, {}
        for each in versions.values():
            each.release()
