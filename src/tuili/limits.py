"""Limits: how far one run may go where its data decides, so that bad data cannot take a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from tuili.errors import InvalidArgument

PREFIX = "TUILI_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one run; 0 stands for none, of `data_bytes` for three quarters of the memory."""

    loop_rounds: int = 10_000_000  # rounds of one loop
    loop_seconds: float = 0.0  # from the first round of the first loop
    data_bytes: int = 0  # all tensors whose shape depends on data, together

    def __post_init__(self) -> None:
        for field in fields(self):
            value: float = getattr(self, field.name)
            if not 0 <= value < 2**62:
                raise InvalidArgument(
                    f"limit {field.name} is {value}; expected a number from 0 (no limit)"
                )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """The limits that variables such as TUILI_LOOP_ROUNDS give; raises InvalidArgument."""
        found: dict[str, float] = {}
        for field in fields(cls):
            name = PREFIX + field.name.upper()
            text = environment.get(name, "")
            kind = float if field.name == "loop_seconds" else int
            try:
                if text:
                    found[field.name] = kind(text)
            except ValueError:
                wanted = "a number" if kind is float else "a whole number"
                raise InvalidArgument(f"{name} is {text!r}; expected {wanted}") from None
        return cls(**found)  # pyright: ignore[reportArgumentType] - each by its own kind
