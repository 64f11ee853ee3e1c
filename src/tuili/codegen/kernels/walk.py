"""Walk: the loops of a kernel over collapsed axes, from grid items to the innermost run.

    item -> (outer axes, run of rows) -> rows -> innermost axis, i in [first, last)

A grid item is a run of the innermost axis, or a run of rows when the innermost axis is short.
Operand 0 is the output `y`, the others are `x0`, `x1`, ...; inside the loops `yp`, `x0p`, ... point
at the start of the current row.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.strides import Stride, declare_stride
from tuili.tensors import Dim, ceil_div, dim_max, floor_div, numel

RUN = 4096  # elements per grid item, about
SHORT = 1024  # from this length on an innermost axis is cut by itself


class Walk:
    """The loops of one kernel; operand 0 is the output."""

    def __init__(
        self,
        k: KernelBuilder,
        dims: Sequence[Dim],
        strides: Sequence[Sequence[Stride]],
        ctypes: Sequence[str],
        offsets: Sequence[Dim] = (),
    ) -> None:
        self.k = k
        self.ctypes = ctypes
        self.offsets = offsets
        self.length = dims[-1]
        self.by_rows = len(dims) > 1 and not (isinstance(dims[-1], int) and dims[-1] >= SHORT)
        self.outer = list(dims[: -2 if self.by_rows else -1])
        self.run_axis = dims[-2] if self.by_rows else dims[-1]
        self.strides = strides
        self.pointers = ["y", *(f"x{index}" for index in range(len(strides) - 1))]

    @property
    def inner(self) -> list[Stride]:
        """The strides along the innermost axis, the output's first."""
        return [row[-1] for row in self.strides]

    def declare(self) -> Dim:
        """Declare dims; returns the grid."""
        k = self.k
        for index, dim in enumerate(self.outer):
            k.dim(f"D{index}", dim)
        run: Dim = RUN
        if self.by_rows:
            run = dim_max(1, floor_div(RUN, dim_max(self.length, 1)))
            k.dim("ROWS", self.run_axis)
        runs = ceil_div(self.run_axis, run)
        k.dims("LENGTH RUN RUNS", (self.length, run, runs))
        return numel(self.outer) * runs

    def loops(self, inner: str) -> str:
        """All loops around the text of the innermost one, which walks i in [first, last)."""
        lines = ["for (int64_t item = begin; item < end; item++) {"]
        lines += [f"    {line}" for line in self._item()]
        if self.by_rows:
            lines += [
                "    const int64_t last_row = tl_min((run + 1) * RUN, ROWS);",
                "    for (int64_t row = run * RUN; row < last_row; row++) {",
                *(f"        {line}" for line in self._row_pointers()),
                "        const int64_t first = 0, last = LENGTH;",
                textwrap.indent(inner, "        "),
                "    }",
            ]
        else:
            lines += [
                *(
                    f"    {self._pointer(index, f'{name}_at')}"
                    for index, name in enumerate(self.pointers)
                ),
                "    const int64_t first = run * RUN, last = tl_min(first + RUN, LENGTH);",
                textwrap.indent(inner, "    "),
            ]
        return "\n".join([*lines, "}"])

    def _item(self) -> list[str]:
        lines = (
            ["const int64_t run = item % RUNS;"] if self.outer else ["const int64_t run = item;"]
        )
        if self.outer:
            lines.append("int64_t rest = item / RUNS;")
        terms = [self._offset(index) for index in range(len(self.pointers))]
        for axis in reversed(range(len(self.outer))):
            index = f"i{axis}"
            if axis:
                lines.append(f"const int64_t {index} = rest % D{axis};")
                lines.append(f"rest /= D{axis};")
            else:
                lines.append(f"const int64_t {index} = rest;")
            for operand, row in enumerate(self.strides):
                step = self._stride(operand, row[axis], axis)
                if step != "0":
                    terms[operand].append(index if step == "1" else f"{index} * {step}")
        for name, offsets in zip(self.pointers, terms, strict=True):
            lines.append(f"const int64_t {name}_at = {' + '.join(offsets) or '0'};")
        return lines

    def _offset(self, operand: int) -> list[str]:
        offset = self.offsets[operand] if self.offsets else 0
        if isinstance(offset, int):
            return [str(offset)] if offset else []
        return [self.k.dim(f"{self.pointers[operand].upper()}_START", offset)]

    def _stride(self, operand: int, stride: Stride, axis: int) -> str:
        return declare_stride(self.k, f"{self.pointers[operand].upper()}_S{axis}", stride)

    def _row_pointers(self) -> list[str]:
        lines: list[str] = []
        for index, name in enumerate(self.pointers):
            step = self._stride(index, self.strides[index][-2], len(self.outer))
            offset = "" if step == "0" else " + row" if step == "1" else f" + row * {step}"
            lines.append(self._pointer(index, f"{name}_at{offset}"))
        return lines

    def _pointer(self, index: int, offset: str) -> str:
        const = "const " if index else ""
        name, ctype = self.pointers[index], self.ctypes[index]
        return f"{const}{ctype} *const {name}p = {name} + {offset};"

    def places(self, index: str) -> list[str]:
        """The elements at `index` of the innermost axis, as lvalues, the output's first."""
        found: list[str] = []
        for operand, stride in enumerate(self.inner):
            step = declare_stride(self.k, f"{self.pointers[operand].upper()}_S", stride)
            at = "0" if step == "0" else index if step == "1" else f"{index} * {step}"
            found.append(f"{self.pointers[operand]}p[{at}]")
        return found
