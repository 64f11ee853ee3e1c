"""The forms in which a configuration may be written: protobuf text, YAML, TOML or JSON.

Every reader gives the JSON form and where its keys stand in the text.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from tuili.errors import InvalidModel, ParseError, Unsupported
from tuili.server.repository import pbtxt
from tuili.server.repository.checking import checked
from tuili.server.repository.source import Marks, Place, Source, position, snake

Json = dict[str, Any]
Reader = Callable[[str], tuple[object, Marks]]

_TOML_PLACE: Final = re.compile(r"\(at line (\d+), column (\d+)\)")


def find(folder: Path) -> Path | None:
    """The configuration file of a model's folder, or None; InvalidModel when there are several."""
    # What is there and is no file, such as a link that leads nowhere, is a mistake, not nothing.
    there = [folder / name for name in FILES if os.path.lexists(folder / name)]
    if len(there) > 1:
        names = " and ".join(path.name for path in there)
        raise InvalidModel(f"{folder} has {names}; keep one of them, as they may differ")
    return there[0] if there else None


def read(path: Path) -> tuple[Json, Source]:
    """A configuration file in JSON form, checked against the schema, and its source."""
    try:
        if path.exists() and not path.is_file():
            raise InvalidModel(f"{path} cannot be read: it is no file")  # a pipe would never end
        # Some editors begin with a byte-order mark.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{path} cannot be read: {error}") from error
    return parse(text, str(path), FILES[path.name])


def parse(text: str, name: str, reader: Reader) -> tuple[Json, Source]:
    """As `read` for text that is at hand; `name` is what errors call it."""
    try:
        raw, marks = reader(text)
    except ParseError as error:
        raise InvalidModel(f"{name}: {error}") from error
    source = Source(name, text, marks)
    return checked("ModelConfig", {} if raw is None else raw, source), source


# ----------------------------------------------------------------------------------- readers


def read_json(text: str) -> tuple[object, Marks]:
    """JSON, and where its keys stand as far as PyYAML is there to tell."""
    try:
        raw: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise _parse_error(error.msg, text, error.pos) from error
    except RecursionError as error:
        raise ParseError("the configuration is nested too deeply") from error
    try:
        # JSON is YAML as soon as no tab stands between its tokens (in strings there can be none).
        return raw, dict(_yaml_marks(_composed(text.replace("\t", " "))))
    except (Unsupported, ParseError):
        return raw, {}


def read_lenient_json(text: str) -> tuple[object, Marks]:
    """JSON as protobuf's reader takes it: names without quotes, text in single quotes.

    Clients of Triton send configurations in this form with a load; YAML's flow form has it all.
    """
    try:
        return read_json(text)
    except ParseError as strict:
        if not text.lstrip().startswith("{"):
            raise
        try:
            return read_yaml(text.replace("\t", " "))
        except (Unsupported, ParseError):
            raise strict from None


def read_yaml(text: str) -> tuple[object, Marks]:
    """YAML, its plain data only."""
    import yaml

    node = _composed(text)
    marks = dict(_yaml_marks(node))
    try:
        return yaml.safe_load(text), marks
    except yaml.YAMLError as error:
        raise ParseError(str(error)) from error


def read_toml(text: str) -> tuple[object, Marks]:
    """TOML; a key is taken to stand where its name is first written."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(str(error), text) from error
    return raw, dict(_toml_marks(raw, text, ()))


FILES: Final[dict[str, Reader]] = {
    "config.pbtxt": pbtxt.parse,
    "config.yaml": read_yaml,
    "config.yml": read_yaml,
    "config.toml": read_toml,
    "config.json": read_json,
}


def _composed(text: str) -> Any:
    """The tree of YAML nodes, which know their places."""
    try:
        import yaml
    except ImportError as error:
        raise Unsupported("YAML needs PyYAML: pip install 'tuili[server]'") from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = ", ".join(part for part in (error.problem, error.context) if part)
        raise _parse_error(told, text, mark.index if mark else 0) from error
    except yaml.YAMLError as error:
        raise ParseError(str(error)) from error
    except RecursionError as error:
        raise ParseError("the configuration is nested too deeply") from error


def _yaml_marks(node: Any, place: Place = ()) -> Iterator[tuple[Place, int]]:
    if node is None or node.id == "scalar":
        return
    if node.id == "sequence":
        for at, item in enumerate(node.value):
            yield (*place, at), item.start_mark.index
            yield from _yaml_marks(item, (*place, at))
        return
    seen: set[str] = set()
    for key, value in node.value:
        buffer, index = key.start_mark.buffer or "", key.start_mark.index
        if key.id != "scalar":
            raise _parse_error("a key must be text", buffer, index)
        if key.value in seen:
            raise _parse_error(f"{key.value!r} is set twice", buffer, index)
        seen.add(key.value)
        below = (*place, snake(str(key.value)))
        yield below, key.start_mark.index
        yield from _yaml_marks(value, below)


def _toml_error(message: str, text: str) -> ParseError:
    """tomllib writes the place into its message; without one it means the end of the text."""
    found = _TOML_PLACE.search(message)
    lines = text.splitlines() or [""]
    line, column = (int(found[1]), int(found[2])) if found else (len(lines), len(lines[-1]) + 1)
    told = message.partition(" (at ")[0]
    return ParseError(told, line=line, column=column, text=lines[min(line, len(lines)) - 1])


def _toml_marks(raw: object, text: str, place: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(raw, list):
        for at, item in enumerate(cast(list[object], raw)):
            yield from _toml_marks(item, text, (*place, at))
    if isinstance(raw, dict):
        for key, value in cast(Json, raw).items():
            name = re.escape(key)
            found = re.search(
                rf"""^[^#\n]*?(?<![\w-])(?=["']?{name}["']?\s*[=.\]])""", text, re.MULTILINE
            )
            below = (*place, snake(key))
            if found:
                yield below, found.end()
            yield from _toml_marks(value, text, below)


def _parse_error(message: str, text: str, offset: int) -> ParseError:
    line, column = position(text, offset)
    lines = text.splitlines()
    shown = lines[line - 1] if line <= len(lines) else ""
    return ParseError(message, line=line, column=column, text=shown)
