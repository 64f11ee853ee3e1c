"""Instances of a model that are loaded side by side, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Model = TypeVar("Model")

MOST_AT_ONCE: Final = 4  # as Triton's --model-load-thread-count has it


def together(load: Callable[[int], Model], numbers: Sequence[int]) -> list[Model]:
    """The instances of these numbers, in order; what one raises, once all have ended."""
    if len(numbers) < 2:
        return [load(number) for number in numbers]
    with ThreadPoolExecutor(MOST_AT_ONCE, "loading") as pool:
        return list(pool.map(load, numbers))


def close_all(models: Iterable[object]) -> None:
    """Close those that can be closed."""
    for model in models:
        close = getattr(model, "close", None)
        if close is not None:
            close()
