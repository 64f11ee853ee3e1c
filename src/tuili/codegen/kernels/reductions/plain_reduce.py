"""Reductions one element at a time, of any type, in a total wide enough."""

from __future__ import annotations

from collections.abc import Sequence

from tuili.codegen.element_types import loaded, stored
from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.reductions.axes import Axes, Loops
from tuili.codegen.kernels.reductions.kinds import KINDS
from tuili.tensors import Dim, DType, numel

# The steps for whole numbers; extremes start from the type's own limits.
_WHOLE = {
    "ReduceL1": "{t} + ({x} < 0 ? -{x} : {x})",
    "ReduceMax": "{x} > {t} ? {x} : {t}",
    "ReduceMin": "{x} < {t} ? {x} : {t}",
}


def emit_plain(k: KernelBuilder, op: str, axes: Axes, dtype: DType) -> Dim:
    """Print the kernel's body; returns the grid."""
    kept, gone = axes.pick(reduced=False), axes.pick(reduced=True)
    loops = Loops(k, dtype.c)
    wide = _wide_type(op, dtype)
    element = f"const {wide} e = ({wide}){loaded(dtype, 'from[at]')};"
    if op == "ReduceLogSumExp":
        lines = _log_sum_exp(loops, gone, dtype, wide, element)
    else:
        start, step, end = _steps(op, dtype, wide)
        inner = [element, f"total = {step.format(t='total', x='e', p='s_')};"]
        result = stored(dtype, f"({dtype.c if not dtype.is_float else wide})({end})")
        lines = [f"{wide} total = {start};", *loops.around(gone, inner), f"y[item] = {result};"]
    k.body(loops.items(kept, lines))
    return numel([dim for dim, _ in kept])


def _steps(op: str, dtype: DType, wide: str) -> tuple[str, str, str]:
    """The first total, the step and the end."""
    kind = KINDS[op]
    end = kind.end.format(t="total", p="s_", count=f"({wide})COUNT")
    if dtype.is_float:
        return kind.first, kind.step, end
    if kind.end != "{t}":
        function = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}.get(op)
        mean = "(double)total / (double)COUNT"
        end = f"tl_to_int({mean if function is None else f'{function}((double)total)'})"
    return _whole_start(op, dtype), _WHOLE.get(op, kind.step), end


def _log_sum_exp(
    loops: Loops, gone: Sequence[tuple[Dim, Dim]], dtype: DType, wide: str, element: str
) -> list[str]:
    prefix = "d_" if wide == "double" else "s_"
    first = loops.around(gone, [element, f"top = {prefix}max(e, top);"])
    second = loops.around(gone, [element, f"total += {prefix}exp(e - top);"])
    result = f"({dtype.c})({stored(dtype, f'{prefix}log(total) + top')})"
    return [
        f"{wide} top = -INFINITY, total = 0;",
        *first,
        "if (!isfinite(top))",
        "    top = 0;",
        *second,
        f"y[item] = {result};",
    ]


def _wide_type(op: str, dtype: DType) -> str:
    """The type of totals."""
    if dtype.is_float:
        return "double" if dtype is DType.F64 else "float"  # f64: ReduceLogSumExp only
    if op in ("ReduceMax", "ReduceMin"):
        return dtype.c
    # Sums wrap around, and may, in 64 bits.
    if op == "ReduceLogSumExp":
        return "double"
    return "uint64_t" if dtype.is_unsigned_int else "int64_t"


def _whole_start(op: str, dtype: DType) -> str:
    if op == "ReduceProd":
        return "1"
    if op not in ("ReduceMax", "ReduceMin"):
        return "0"
    if dtype is DType.BOOL:
        return "0" if op == "ReduceMax" else "1"
    size = dtype.bits
    if dtype.is_unsigned_int:
        return "0" if op == "ReduceMax" else f"UINT{size}_MAX"
    return f"INT{size}_{'MIN' if op == 'ReduceMax' else 'MAX'}"
