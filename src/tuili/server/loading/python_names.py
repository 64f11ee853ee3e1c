"""Names that Triton gives no Python model, as it passes them to a shell; its tests ask for it."""

from __future__ import annotations

from typing import Final

from tuili.errors import InvalidModel

_SHELL: Final = frozenset(";|&$`<>()[]{}\\\"'*?~#!")


def check_name(name: str) -> None:
    """InvalidModel for a name with any of the characters that a shell would read."""
    found = sorted(_SHELL.intersection(name))
    if found:
        raise InvalidModel(
            f"Invalid stub name: contains invalid characters: {name!r} has {' '.join(found)}"
        )
