"""Why tests of Triton fail here, by the end of their names."""

from __future__ import annotations

WHY: dict[str, str] = {}
