"""The C kernels of plug-in operators: a call of the user's function with what it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tuili.codegen.element_types import literal
from tuili.codegen.family import Family
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.errors import Unsupported
from tuili.ir import Node, Value
from tuili.ops.c_kernel import (
    CKernel,
    Parameter,
    declarations,
    kind_of,
    parameters,
    returns_status,
)
from tuili.ops.op import Slot
from tuili.ops.table import attributes, lookup
from tuili.tensors import DType, numel


def families(node: Node) -> tuple[Family, ...]:
    """One family per kernel that the operator brings."""
    return tuple(_family(kernel) for kernel in lookup(node.op).kernels)


def _family(kernel: CKernel) -> Family:
    return Family(
        f"C kernel {kernel.function}",
        lambda node, ctx: _emit(kernel, node, ctx),
        lambda node, ctx: _supports(kernel, node),
    )


def _supports(kernel: CKernel, node: Node) -> bool:
    """Row-major tensors of the element types that the pointers have."""
    tensors = _tensors(node)
    present = [value for value in tensors.values() if value is not None]
    return all(not value.layout for value in present) and all(
        _fits(parameter, tensors[parameter.name])
        for parameter in parameters(kernel)
        if parameter.name in tensors
    )


def _fits(parameter: Parameter, value: Value | None) -> bool:
    return value is None or parameter.type in ("void", value.dtype.c)


def _tensors(node: Node) -> dict[str, Value | None]:
    """The inputs and outputs by their names in the signature."""
    row = lookup(node.op)
    given = {slot.name: node.input(index) for index, slot in enumerate(row.inputs)}
    return {**given, **_made(row.outputs, node)}


def _made(slots: Iterable[Slot], node: Node) -> dict[str, Value | None]:
    outputs = node.outputs
    return {
        slot.name: outputs[index] if index < len(outputs) else None
        for index, slot in enumerate(slots)
    }


def _emit(kernel: CKernel, node: Node, ctx: Context) -> None:
    call = _Call(node, KernelBuilder(ctx, node, re.sub(r"\W+", "_", node.op)))
    call.k.support(kernel.source)
    arguments = ["begin", "end", *map(call.argument, parameters(kernel))]
    statement = f"{kernel.function}({', '.join(arguments)})"
    if returns_status(kernel):
        fault = call.k.fault(f"its C kernel {kernel.function} failed")
        call.k.body(f"if ({statement} != 0) {{\n    {fault}\n}}")
    else:
        call.k.body(f"{statement};")
    first = node.outputs[0].shape
    axes = first if kernel.items is None else first[: kernel.items]
    call.k.emit(grid=numel(axes), flops=numel(first), bytes=numel(first))


class _Call:
    """The arguments of one call, declared as they are asked for."""

    def __init__(self, node: Node, k: KernelBuilder) -> None:
        self.node = node
        self.k = k
        self._tensors = _tensors(node)
        self._inputs = {slot.name for slot in lookup(node.op).inputs}
        self._attrs = attributes(node)

    def argument(self, parameter: Parameter) -> str:
        """The C expression for a parameter."""
        name = parameter.name
        if name in self._tensors:
            return self._pointer(name, self._tensors[name])
        if name in self._attrs:
            return self._attribute(parameter)
        if name.endswith("_shape"):
            return self._shape(name, self._tensors[name.removesuffix("_shape")])
        value = self._attrs[name.removesuffix("_count")]
        return str(len(value)) if isinstance(value, tuple) else "0"  # pyright: ignore[reportUnknownArgumentType]

    def _pointer(self, name: str, value: Value | None) -> str:
        if value is None:
            return "NULL"
        if name in self._inputs:
            return self.k.read(name, value)
        return self.k.write(name, value)

    def _shape(self, name: str, value: Value | None) -> str:
        if value is None:
            return "NULL"
        dims = [self.k.dim(f"{name}_{axis}", dim) for axis, dim in enumerate(value.shape)]
        self.k.body(f"const int64_t {name}[] = {{{', '.join(dims) or '0'}}};")
        return name

    def _attribute(self, parameter: Parameter) -> str:
        name, value = parameter.name, self._attrs[parameter.name]
        if value is None and parameter.pointer:
            return "NULL"
        if str(parameter) not in declarations(name, kind_of(value)):
            raise Unsupported(
                f"{self.node.label}: its C kernel declares `{parameter}`, but the attribute"
                f" {name!r} is {value!r}"
            )
        if isinstance(value, str):
            return _text(value)
        if not isinstance(value, tuple):
            return _number(value, parameter.type)
        items = ", ".join(_number(item, parameter.type) for item in value)  # pyright: ignore[reportUnknownVariableType]
        self.k.body(f"const {parameter.type} {name}[] = {{{items or '0'}}};")
        return name


def _number(value: object, ctype: str) -> str:
    dtype = {"float": DType.F32, "double": DType.F64}.get(ctype, DType.I64)
    return literal(value, dtype)


def _text(value: str) -> str:
    """A C string; octal, because no digit can follow it by accident."""
    return '"' + "".join(f"\\{byte:03o}" for byte in value.encode()) + '"'
