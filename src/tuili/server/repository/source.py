"""Source: where a configuration was written, so that an error can point at the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tuili.errors import InvalidModel, ParseError

# A place is the way to a value: field names, list positions, map keys.
Place = tuple[str | int, ...]
# Where the keys stand in the text: offsets of their first character.
Marks = Mapping[Place, int]


def snake(name: str) -> str:
    """Protobuf's lowerCamelCase JSON names as the snake_case ones of the schema."""
    return "".join("_" + char.lower() if char.isupper() else char for char in name)


@dataclass(frozen=True, slots=True)
class Source:
    """A place in a configuration; `str()` is its file and, where known, its line and column."""

    name: str
    text: str = ""
    marks: Marks = field(default_factory=dict[Place, int])
    place: Place = ()

    def at(self, *steps: str | int) -> Source:
        """A place below this one."""
        return replace(self, place=(*self.place, *steps))

    def line_column(self) -> tuple[int, int] | None:
        """Line and column (from 1) of this place or of the nearest written one above it."""
        for length in range(len(self.place), 0, -1):
            offset = self.marks.get(self.place[:length])
            if offset is not None:
                return position(self.text, offset)
        return None

    def error(self, message: str, *steps: str | int) -> InvalidModel:
        """The error that says `message` about the place `steps` below this one."""
        where = self.at(*steps)
        found = where.line_column()
        if found is None:
            path = f" {dotted(where.place)}:" if where.place else ""
            return InvalidModel(f"{self.name}:{path} {message}")
        line, column = found
        shown = self.text.splitlines()[line - 1]
        return InvalidModel(
            f"{self.name}: {ParseError(message, line=line, column=column, text=shown)}"
        )

    def __str__(self) -> str:
        found = self.line_column()
        return self.name if found is None else f"{self.name}:{found[0]}:{found[1]}"


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column, from 1, of an offset."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def dotted(place: Place) -> str:
    """A place as people write it: `input[0].dims`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
