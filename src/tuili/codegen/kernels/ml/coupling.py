"""CoupledPairs: class probabilities from those of pairs, by a fixed point per row."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.ir import Node
from tuili.ops.ml.linear import coupling_rounds
from tuili.tensors import DType


def supports(node: Node, ctx: Context) -> bool:
    """Known classes; pairs in f32 or f64."""
    known = isinstance(node.output.shape[1], int)
    return known and node.required(0).dtype in (DType.F32, DType.F64)


def emit(node: Node, ctx: Context) -> None:
    """One grid item is a row; its matrix is private to the thread."""
    x, y = node.required(0), node.output
    classes = y.shape[1]
    assert isinstance(classes, int)
    k = KernelBuilder(ctx, node, f"coupled_{x.dtype.value}")
    k.read("pairs", x)
    k.write("y", y)
    k.dims("C PAIRS ROUNDS", (classes, x.shape[1], coupling_rounds(classes)))
    k.scratch(8 * classes * (2 * classes + 2))
    k.body(_ROWS.replace("REAL", x.dtype.c))
    flops = x.shape[0] * classes * classes * classes * 10
    k.emit(grid=x.shape[0], flops=flops, bytes=size_of(x.tensor) + size_of(y.tensor))


# Of each pair the other way round, and what couples them: r and q.
_PAIRS = """\
    for (int64_t i = 0, pair = row * PAIRS; i < C; i++)
        for (int64_t j = i + 1; j < C; j++, pair++) {
            r[i * C + j] = pairs[pair];
            r[j * C + i] = 1 - pairs[pair];
        }
    for (int64_t i = 0; i < C; i++) {
        double own = 0;
        for (int64_t j = 0; j < C; j++) {
            if (j == i)
                continue;
            own += r[j * C + i] * r[j * C + i];
            q[i * C + j] = -r[j * C + i] * r[i * C + j];
        }
        q[i * C + i] = own;
        p[i] = 1.0 / C;
    }"""

# Rounds of the fixed point until the rows of q p are level: one class after the other.
_TURNS = """\
    for (int64_t turn = 0; turn < ROUNDS; turn++) {
        double level = 0, most = 0;
        for (int64_t i = 0; i < C; i++) {
            qp[i] = 0;
            for (int64_t j = 0; j < C; j++)
                qp[i] += q[i * C + j] * p[j];
            level += p[i] * qp[i];
        }
        for (int64_t i = 0; i < C; i++)
            most = fabs(qp[i] - level) > most ? fabs(qp[i] - level) : most;
        if (most < 0.005 / C)
            break;
        for (int64_t t = 0; t < C; t++) {
            const double step = (level - qp[t]) / q[t * C + t], whole = 1 + step;
            p[t] += step;
            level = (level + step * (step * q[t * C + t] + 2 * qp[t])) / (whole * whole);
            for (int64_t j = 0; j < C; j++) {
                qp[j] = (qp[j] + step * q[t * C + j]) / whole;
                p[j] /= whole;
            }
        }
    }"""

_ROWS = f"""
double *const r = (double *)scratch, *const q = r + C * C, *const p = q + C * C, *const qp = p + C;
for (int64_t row = begin; row < end; row++) {{
{_PAIRS}
{_TURNS}
    for (int64_t i = 0; i < C; i++)
        y[row * C + i] = (REAL)p[i];
}}"""
