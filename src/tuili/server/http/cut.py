"""Cut: a request's JSON text without what changes in it, so that like texts are the same.

What is left of a text without its id and its arrays of numbers are its *words*. Two texts with the
same words and as many of both differ in nothing else, as long as each array is a JSON value by
itself: whoever reads the one text up to there is in the same state as with the other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final

import msgspec

from tuili.errors import TuiliError
from tuili.server.http.json_tensors import array_from_json
from tuili.server.http.json_text import parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.protocol.messages import InferRequest, InputTensor

_KEY: Final = b'"data"'
_OPENS: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")
# Of an id that is the same in JSON and as text.
_PLAIN_ID: Final = re.compile(rb"[ !#-\[\]-~]{1,128}")
_ID: Final = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"(' + _PLAIN_ID.pattern + rb')"')
# They stand for key and array, and for key and id, in the words; no JSON text has these bytes.
_CUT: Final = b"\0"
_CUT_ID: Final = b"\1"
# Of the module `struct`, which makes bytes of a list's numbers in a quarter of NumPy's time.
_CODES: Final = {
    "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip


class Slot(msgspec.Struct, gc=False):
    """An input whose numbers stand in the text; `pack` makes bytes of them, where all is well."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    pack: Callable[..., bytes] | None


def cut(text: bytes) -> tuple[bytes, list[bytes]]:
    """The words of a text, and its arrays of numbers in their order."""
    arrays: list[bytes] = []
    words: list[bytes] = []
    done, key = 0, text.find(_KEY)
    while key >= 0:
        opens = _OPENS.match(text, key + len(_KEY))
        if opens is None:
            return text, []
        # Numbers have neither quotes nor braces in them: the array ends before the first of these.
        begin, beyond = opens.end(), text.find(b'"', opens.end())
        brace = text.find(b"}", begin, beyond if beyond >= 0 else len(text))
        end = text.rfind(b"]", begin, brace if brace >= 0 else beyond) + 1
        if not end:
            return text, []
        words.append(text[done:key])
        arrays.append(text[begin:end])
        done, key = end, text.find(_KEY, end)
    words.append(text[done:])
    return _CUT.join(words), arrays


def cut_id(text: bytes) -> tuple[bytes, str]:
    """A text without its request's id, and that id; "" if there is none, or an odd one."""
    found = _ID.search(text) if b'"id"' in text else None
    if found is None:
        return text, ""
    return text[: found.start()] + _CUT_ID + text[found.end() :], found[1].decode()


def id_place(text: bytes) -> tuple[int, int]:
    """Where the id stands that `cut_id` finds; nothing at the end of the text if it finds none."""
    found = _ID.search(text)
    return (len(text), len(text)) if found is None else found.span(1)


def is_plain_id(text: bytes) -> bool:
    """Whether an id is the same in JSON and as text."""
    return _PLAIN_ID.fullmatch(text) is not None


def are_right(words: bytes, request: InferRequest, limits: HttpLimits) -> bool:
    """Whether what was cut out of a valid request are its id and its inputs' data, nothing else.

    Each array is put back as its number, and must be found where an input's data are.
    """
    text, *others = words.replace(_CUT_ID, b'"id":"0"').split(_CUT)
    for number, piece in enumerate(others):
        text += _KEY + b":[%d]" % number + piece
    try:
        document: Any = parse_json(text, limits)
    except TuiliError:
        return False
    if document.get("id", "") != ("0" if _CUT_ID in words else ""):
        return False
    found = [entry.get("data") for entry in document["inputs"]]
    expected = [[number] for number in range(len(others))] or [None] * len(request.inputs)
    return found == expected


def slots_of(inputs: Sequence[InputTensor]) -> tuple[Slot, ...]:
    """The inputs of a request whose numbers stand in its text."""
    found: list[Slot] = []
    for each in inputs:
        code = _CODES.get(each.datatype)
        pack = struct.Struct(f"{prod(each.shape)}{code}").pack if code else None
        found.append(Slot(each.name, each.datatype, each.shape, pack))
    return tuple(found)


def raw_of(slots: Sequence[Slot], arrays: Sequence[bytes], limits: HttpLimits) -> bytes | None:
    """The bytes of the inputs' tensors, one after the other; None if some array is not right."""
    if len(arrays) != len(slots):
        return None
    try:
        parts = [_tensor(slot, text, limits) for slot, text in zip(slots, arrays, strict=True)]
    except TuiliError:
        return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _tensor(slot: Slot, text: bytes, limits: HttpLimits) -> bytes:
    data = parse_json(text, limits)
    # `struct` takes true for 1; everything else that is not right, it refuses.
    if slot.pack is not None and b"t" not in text and b"f" not in text:
        try:
            return slot.pack(*data)
        except (struct.error, OverflowError):
            pass  # nested, beyond the range, or wrong in a way that is told below
    return array_from_json(slot.name, slot.datatype, slot.shape, data).tobytes()
