"""Checks a configuration in JSON form against the schema; errors point at the written line.

Beside protobuf's own JSON form (snake_case or lowerCamelCase names, whole numbers also as text),
what people write by hand is understood: `FP32` for `TYPE_FP32`, and for an entry of `parameters`
its plain value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from tuili.errors import nearest
from tuili.server.repository.schema import (
    ENUMS,
    INTEGERS,
    MESSAGES,
    ONE_OF,
    SCALARS,
    field_type,
    unfit,
)
from tuili.server.repository.source import Source, snake

Json = dict[str, Any]

_SCALARS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "bool": (bool,),
    "float": (int, float),
    **dict.fromkeys(INTEGERS, (int,)),
}


def checked(message: str, raw: object, source: Source) -> Json:
    """`raw` as a message of the schema, its names in snake_case; InvalidModel tells what is off."""
    if not isinstance(raw, dict):
        raise source.error(f"expected {message}, an object of fields, found {raw!r}")
    found: Json = {}
    for key, value in cast(Json, raw).items():
        name = snake(str(key))
        if value is None and name in MESSAGES[message]:
            continue  # as in protobuf's JSON: not set
        if name not in MESSAGES[message]:
            hint = nearest(name, MESSAGES[message])
            raise source.error(f"{message} has no field {key!r}.{hint}", name)
        if name in found:
            raise source.error(f"field {name!r} is set twice", name)
        found[name] = _field(message, name, value, source.at(name))
    together = [name for name in ONE_OF.get(message, ()) if name in found]
    if len(together) > 1:
        raise source.error(
            f"only one of {together[0]!r} and {together[1]!r} may be set", together[1]
        )
    return found


def _field(message: str, name: str, value: object, source: Source) -> object:
    how, kind = field_type(message, name)
    if how == "one":
        return _one(kind, value, source)
    if how == "many":
        if not isinstance(value, list):
            raise source.error(f"expected a list of {_plural(kind)}, found {value!r}")
        items = cast(list[object], value)
        return [_one(kind, item, source.at(at)) for at, item in enumerate(items)]
    if not isinstance(value, dict):
        raise source.error(f"expected an object of {_plural(kind)} by name, found {value!r}")
    entries = cast(Json, value)
    return {str(key): _one(kind, item, source.at(str(key))) for key, item in entries.items()}


def _one(kind: str, value: object, source: Source) -> object:
    if kind == "Parameter" and isinstance(value, str | int | float):
        return {"string_value": _text(value)}
    if kind in MESSAGES:
        return checked(kind, value, source)
    if kind in ENUMS:
        return _enum(kind, value, source)
    if kind in INTEGERS and isinstance(value, str) and value.removeprefix("-").isdecimal():
        value = int(value)
    if kind in INTEGERS and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise source.error(f"expected {SCALARS[kind]}, found {value!r}")
    wanted = unfit(kind, value) if isinstance(value, int | float) else ""
    if wanted:
        raise source.error(f"expected {wanted}, found {value!r}")
    return value


def _enum(kind: str, value: object, source: Source) -> str:
    names: Sequence[str] = ENUMS[kind]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    for spelt in (value, f"TYPE_{value}" if kind == "DataType" else value):
        if spelt in names:
            return str(spelt)
    raise source.error(f"{value!r} is no {kind}.{nearest(str(value), names)}")


def _text(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plural(kind: str) -> str:
    return kind if kind in MESSAGES or kind in ENUMS else f"{kind} values"
