"""Shares: what waits for many receivers within one bound; each is sure of an equal part of it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Shares(Generic[Item]):
    """Items of some size, by who they are for.

    While there is room anyone may have it. When there is none, who has no more than an equal share
    takes the place of the newest items of those who have most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: dict[str, dict[Item, int]] = {}
        self._sizes: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Of all items."""
        return sum(self._sizes.values())

    def size_of(self, receiver: str) -> int:
        """Of all items for a receiver."""
        return self._sizes.get(receiver, 0)

    def add(self, receiver: str, item: Item, size: int) -> list[Item] | None:
        """Have an item wait; those that give way to it, or None when it may not have the place."""
        going = self._giving_way(receiver, size)
        if going is None:
            return None
        for each, one in going:
            self.remove(each, one)
        self._items.setdefault(receiver, {})[item] = size
        self._sizes[receiver] = self.size_of(receiver) + size
        return [one for _, one in going]

    def remove(self, receiver: str, item: Item) -> None:
        """An item waits no more, if it does."""
        size = self._items.get(receiver, {}).pop(item, 0)
        self._sizes[receiver] = self.size_of(receiver) - size
        if not self._items.get(receiver):
            self._items.pop(receiver, None)
            del self._sizes[receiver]

    def _giving_way(self, receiver: str, size: int) -> list[tuple[str, Item]] | None:
        """Who has to go for an item of that size; None: it may not have the place of any."""
        missing = self.size + size - self._most
        if missing <= 0:
            return []
        share = self._most // len({*self._items, receiver})
        if self.size_of(receiver) + size > share:
            return None
        going: list[tuple[str, Item]] = []
        sizes = dict(self._sizes)
        newest = {each: list(items.items()) for each, items in self._items.items()}
        while missing > 0:
            largest = max(sizes, key=sizes.__getitem__)
            item, freed = newest[largest].pop()
            going.append((largest, item))
            sizes[largest] -= freed
            missing -= freed
        return going
