"""The merged axes of a reduction, and the loops over results and over what they are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.strides import contiguous
from tuili.tensors import Dim


@dataclass(frozen=True, slots=True)
class Axes:
    """Merged axes of the input, outermost first: sizes, strides, whether they are reduced."""

    dims: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    reduced: tuple[bool, ...]

    def pick(self, *, reduced: bool) -> list[tuple[Dim, Dim]]:
        """(size, stride) of the axes of one fate."""
        rows = zip(self.dims, self.strides, self.reduced, strict=True)
        return [(dim, stride) for dim, stride, gone in rows if gone == reduced]


def merge_axes(shape: Sequence[Dim], axes: Sequence[int]) -> Axes:
    """Neighbouring axes of the same fate as one; axes of size 1 dropped."""
    dims: list[Dim] = []
    strides: list[Dim] = []
    fates: list[bool] = []
    for axis, (dim, stride) in enumerate(zip(shape, contiguous(shape), strict=True)):
        if dim == 1:
            continue
        if fates and fates[-1] == (axis in axes):
            dims[-1], strides[-1] = dims[-1] * dim, stride
            continue
        dims.append(dim)
        strides.append(stride)
        fates.append(axis in axes)
    return Axes(tuple(dims), tuple(strides), tuple(fates))


class Loops:
    """Prints the loops of one reduction; dims are declared once, as two passes may share them."""

    def __init__(self, k: KernelBuilder, ctype: str) -> None:
        self.k, self.ctype = k, ctype
        self._declared: set[str] = set()

    def declare(self, names: str, dims: Sequence[Dim]) -> None:
        """Declare dims of the kernel that are not yet."""
        for name, dim in zip(names.split(), dims, strict=True):
            if name not in self._declared:
                self.k.dim(name, dim)
                self._declared.add(name)

    def around(self, gone: Sequence[tuple[Dim, Dim]], inner: Sequence[str]) -> list[str]:
        """Loops over reduced axes around statements that read `at`."""
        lines = list(inner)
        previous = "0"
        heads: list[str] = []
        for index, (dim, stride) in enumerate(gone):
            self.declare(f"R{index} RS{index}", (dim, stride))
            at = f"at{index}"
            heads.append(f"for (int64_t r{index} = 0; r{index} < R{index}; r{index}++) {{")
            heads.append(f"    const int64_t {at} = {previous} + r{index} * RS{index};")
            previous = at
        body = [f"int64_t at = {previous};", "(void)at;", *lines]
        depth = len(gone)
        text = [f"{'    ' * (index // 2)}{line}" for index, line in enumerate(heads)]
        text += [f"{'    ' * depth}{line}" for line in body] if depth else ["{", *body, "}"]
        return [*text, *(f"{'    ' * index}}}" for index in reversed(range(depth)))]

    def items(
        self,
        kept: Sequence[tuple[Dim, Dim]],
        lines: Sequence[str],
        *,
        outer: str = "item",
        many: bool = False,
    ) -> str:
        """The loop over grid items: `from` is where the elements of place `outer` start.

        With `many` the lines say how many items they have done, `items`.
        """
        head = [f"const int64_t outer = {outer};", "int64_t rest = outer;"]
        terms = ["x"]
        for index, (dim, stride) in reversed(list(enumerate(kept))):
            self.declare(f"K{index} KS{index}", (dim, stride))
            head.append(f"const int64_t k{index} = rest % K{index};")
            head.append(f"rest /= K{index};")
            terms.append(f"k{index} * KS{index}")
        head += ["(void)rest;", f"const {self.ctype} *const from = {' + '.join(terms)};"]
        text = textwrap.indent("\n".join([*head, *lines]), "    ")
        loop = "item = begin, items = 1; item < end; item += items" if many else ""
        return f"for (int64_t {loop or 'item = begin; item < end; item++'}) {{\n{text}\n}}"
