"""Conditions of pipeline steps: `count > 0`, `not found.empty`, `lang.code == "en"`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tuili.errors import ParseError

Scalar = bool | int | float | str

_COMPARE: Final[Mapping[str, Callable[[Scalar, Scalar], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM: Final = re.compile(
    r"""\s*(?P<negated>not\s+)?(?P<tensor>[^\s=!<>"']+)\s*
    (?:(?P<compare>==|!=|<=|>=|<|>)\s*
       (?P<literal>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|"[^"\\]*"|'[^'\\]*'))?\s*""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A tensor of one element compared with a constant; without one, its truth."""

    tensor: str
    compare: str = "!="
    literal: Scalar = False

    def holds(self, value: Scalar) -> bool:
        """Whether the tensor's only element meets it; true and false compare its truth."""
        if isinstance(self.literal, bool):
            value = bool(value)
        if isinstance(value, str) != isinstance(self.literal, str):
            return self.compare == "!="  # text and number: unequal, and neither is less
        return _COMPARE[self.compare](value, self.literal)


def parse(text: str) -> Condition:
    """The condition that `text` says; ParseError shows the forms that there are."""
    found = _FORM.fullmatch(text)
    if found is None or (found["negated"] and found["compare"]):
        raise ParseError(
            f"{text!r} is no condition: expected TENSOR, not TENSOR, or TENSOR == 1 "
            '(also !=, <, <=, >, >=; a number, true, false or "text")'
        )
    if found["compare"] is None:
        return Condition(found["tensor"], "==" if found["negated"] else "!=", False)
    return Condition(found["tensor"], found["compare"], _literal(found["literal"]))


def _literal(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    value: Scalar = ast.literal_eval(text)
    return value
