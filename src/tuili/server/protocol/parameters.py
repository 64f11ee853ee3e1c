"""The request parameters whose meaning the protocol fixes, and the keys it reserves."""

from __future__ import annotations

from typing import Any, Final

from tuili.errors import InvalidArgument

_UNSIGNED: Final = frozenset(("priority", "timeout"))
_MOST_TOLD: Final = 200  # letters of a wrong value
_FLAGS: Final = frozenset(("sequence_start", "sequence_end"))


class WrongType(InvalidArgument):
    """A value of another type than its key has: 400 here, 500 over HTTP in Triton."""


def wrong_type(key: str, value: Any, wanted: str) -> WrongType:
    """The error of a value that is no `wanted` ("boolean", "unsigned-integer", ...)."""
    got = repr(value)
    if len(got) > _MOST_TOLD:
        got = f"{got[:_MOST_TOLD]}..."
    return WrongType(
        f"Unable to parse '{key}': attempt to access JSON non-{wanted} as {wanted}: got {got}"
    )


def check_parameter(key: str, value: Any) -> None:
    """Refuse a request parameter with a reserved key or a value of the wrong type."""
    if key.startswith("triton_"):
        raise InvalidArgument(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not"
            " be specified."
        )
    if key in _UNSIGNED:
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise wrong_type(key, value, "unsigned-integer")
    elif key in _FLAGS:
        if not isinstance(value, bool):
            raise wrong_type(key, value, "boolean")
    elif key == "sequence_id":
        if not isinstance(value, str) and (type(value) is not int or not 0 <= value < 1 << 64):
            raise wrong_type(key, value, "string")
    elif not isinstance(value, bool | int | float | str):
        raise InvalidArgument(
            f"parameter '{key}' has invalid type. It should be either 'int', 'bool', or 'string'."
        )
