"""The request parameters whose meaning the protocol fixes, and the keys it reserves."""

from __future__ import annotations

from typing import Any, Final

from tuili.errors import InvalidArgument

_UNSIGNED: Final = frozenset(("priority", "timeout"))
_FLAGS: Final = frozenset(("sequence_start", "sequence_end"))


def check_parameter(key: str, value: Any) -> None:
    """Refuse a request parameter with a reserved key or a value of the wrong type."""
    if key.startswith("triton_"):
        raise InvalidArgument(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not"
            " be specified."
        )
    if key in _UNSIGNED:
        good = type(value) is int and 0 <= value < 1 << 64
    elif key in _FLAGS:
        good = isinstance(value, bool)
    elif key == "sequence_id":
        good = isinstance(value, str) or (type(value) is int and 0 <= value < 1 << 64)
    elif isinstance(value, bool | int | float | str):
        return
    else:
        raise InvalidArgument(
            f"parameter '{key}' has invalid type. It should be either 'int', 'bool', or 'string'."
        )
    if not good:
        raise InvalidArgument(f"Unable to parse '{key}', got: {value!r}")
