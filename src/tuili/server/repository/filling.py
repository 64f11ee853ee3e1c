"""Defaults of a configuration filled in, as protobuf's JSON form shows them.

Scalars and enums get their first value, lists and maps are empty; messages stay absent where they
are, for that has a meaning of its own.
"""

from __future__ import annotations

from typing import Any, Final

from tuili.server.repository.schema import ENUMS, INTEGERS, MESSAGES, field_type

Json = dict[str, Any]
_SCALARS: Final[Json] = {
    "string": "",
    "float": 0.0,
    "bool": False,
    **dict.fromkeys(INTEGERS, 0),
}


def filled(raw: Json, message: str = "ModelConfig") -> Json:
    """`raw` with every field of its message, in the order of the schema."""
    full: Json = {}
    for name in MESSAGES[message]:
        kind, element = field_type(message, name)
        if name in raw:
            full[name] = _inside(raw[name], kind, element)
        elif kind != "one":
            full[name] = [] if kind == "many" else {}
        elif element in _SCALARS:
            full[name] = _SCALARS[element]
        elif element in ENUMS:
            full[name] = ENUMS[element][0]
    return {**full, **{name: value for name, value in raw.items() if name not in full}}


def _inside(value: Any, kind: str, element: str) -> Any:
    if element not in MESSAGES:
        return value
    if kind == "many":
        return [filled(each, element) for each in value]
    if kind == "one":
        return filled(value, element)
    return {key: filled(each, element) for key, each in value.items()}
