"""The checks at the start of a run: sizes of the inputs that the model takes for granted."""

from __future__ import annotations

from tuili.codegen.run_layout import c_of
from tuili.codegen.text import c_string
from tuili.lower.program import Program
from tuili.ops.requirements import Requirement
from tuili.tensors import Dim


def requirement_lines(program: Program) -> list[str]:
    """C that ends the run with a message when the shapes of the inputs do not fit together."""
    return [
        line for each in program.requirements for line in check_lines(each, "return 1;", indent=4)
    ]


def check_lines(requirement: Requirement, otherwise: str, *, indent: int = 0) -> list[str]:
    """C that writes a message and does `otherwise` when a requirement is not met."""
    left, right = c_of(requirement.left), c_of(requirement.right)
    message = _message(requirement)
    lines = [
        f"if (!({_condition(requirement, left, right)})) {{",
        f"    snprintf(run->error, (size_t)run->error_size, {message},",
        f"             (long long){left}, (long long){right});",
        f"    {otherwise}",
        "}",
    ]
    return [" " * indent + line for line in lines]


def _condition(requirement: Requirement, left: str, right: str) -> str:
    if requirement.or_more:
        return f"{left} >= {right}"
    equal = f"{left} == {right}"
    if not requirement.or_one:
        return equal
    # An empty axis against one of size 1 is left out: the result would have to be empty.
    sides = ((left, right, requirement.left), (right, left, requirement.right))
    ones = [
        f"({one} == 1 && {other} > 0)"
        for one, other, dim in sides
        if not isinstance(dim, int) or dim == 1
    ]
    return " || ".join([equal, *ones])


def _message(requirement: Requirement) -> str:
    where = f"{requirement.label}: {requirement.what}".replace("%", "%%")
    if requirement.or_more and requirement.right == 0:
        return c_string(f"{where}: {_named(requirement.left)}; expected 0 or more")
    sizes = f"{_named(requirement.left)} and {_named(requirement.right)}"
    return c_string(f"{where}: {sizes}; {requirement.expected}")


def _named(dim: Dim) -> str:
    """`N = 5`, or only the number when there is no name; the number is printed by C."""
    return "%lld" if isinstance(dim, int) else f"{dim} = %lld".replace("% ", "%% ")
