"""JSON as clients of this protocol write it: NaN and Infinity allowed, deep nesting not."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final

import numpy as np
import orjson

from tuili.errors import InvalidArgument
from tuili.server.http.limits import HttpLimits
from tuili.server.http.refusals import JsonMistake
from tuili.server.http.reply import Buffer

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
STEP: Final = np.zeros(256, np.int8)  # by which a byte leads deeper
STEP[[ord("["), ord("{")]] = 1
STEP[[ord("]"), ord("}")]] = -1


class NotPlain(InvalidArgument):
    """JSON of a form that nobody writes who wants something simple."""


class TooDeep(NotPlain):
    """JSON whose arrays and objects lie too deep in each other."""

    def __init__(self, most: int) -> None:
        super().__init__(f"JSON nesting depth exceeds maximum allowed limit ({most})")


def check_size(size: int, limits: HttpLimits) -> None:
    """Refuse a JSON text that is longer than it may be."""
    most = limits.max_json_bytes
    if size > most:
        raise InvalidArgument(
            f"request JSON size of {size} bytes exceeds the maximum allowed input size of {most}"
            " bytes. Use --http-max-input-size to increase the limit."
        )


def parse_json(text: Buffer, limits: HttpLimits) -> Any:
    """The value of a JSON text; InvalidArgument when it is malformed, too long or too deep."""
    check_size(len(text), limits)
    # RFC 8259 section 8.1 lets a reader disregard the mark that some editors begin a file with.
    data, max_depth = bytes(text).removeprefix(codecs.BOM_UTF8), limits.max_json_depth
    # Only a text with that many brackets can be that deep; nearly none has them.
    if data.count(b"[") + data.count(b"{") > max_depth and _depth(data) > max_depth:
        raise TooDeep(max_depth)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _parse_lenient(data, error)


def _parse_lenient(data: bytes, refusal: orjson.JSONDecodeError) -> Any:
    """Parse what orjson refused because of NaN or Infinity, which RFC 8259 has not."""
    if b"NaN" in data or b"Infinity" in data:
        try:
            return json.loads(data)
        except ValueError:
            pass  # the strict parser's message is the better one
    raise JsonMistake(f"failed to parse the request JSON buffer: {refusal}") from None


def repeated_keys(text: Buffer) -> list[str]:
    """The keys that a JSON object gives more than once, each as often as it comes back."""
    found: list[str] = []  # of another value: nothing

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        found.clear()  # the outermost object comes last
        for key, value in pairs:
            if key in seen:
                found.append(key)
            seen[key] = value
        return seen

    json.loads(bytes(text), object_pairs_hook=note)
    return found


def _depth(data: bytes) -> int:
    """How deep the brackets outside strings nest."""
    steps = STEP[np.frombuffer(_STRINGS.sub(b"", data), np.uint8)]
    return int(steps.cumsum(dtype=np.int64).max(initial=0))


def dump_json(value: Any, finite: bool = True) -> bytes:
    """`value` as compact JSON; without `finite`, NaN and Infinity are written as such."""
    if finite:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(value, separators=(",", ":"), default=_plain).encode()


def dump_numbers(array: np.ndarray[Any, Any]) -> bytes:
    """A flat array of numbers or flags as compact JSON; NaN and Infinity are written as such."""
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    # What is not finite became null.
    return text if b"n" not in text else dump_json(array, finite=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON form for {type(value).__name__}")
