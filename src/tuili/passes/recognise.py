"""Recognition: what exporters spell out in small operators gets its name back.

Every spelling is one row. Kernels then compute a whole normalisation in one pass over a row.
"""

from __future__ import annotations

from tuili.ir import Graph, TensorType
from tuili.ops.contents import Contents
from tuili.passes.patterns import Match, Rule, apply_rules


def recognise(graph: Graph, contents: Contents) -> bool:
    """Name what is spelt out, until nothing more is found."""
    changed = False
    while apply_rules(graph, RULES, contents):
        changed = True
    return changed


def _normalises_last_axis(match: Match) -> bool:
    """Scale and bias, where matched, are vectors of the last axis; epsilon is one number."""
    x = match["x"]
    if not isinstance(x.type, TensorType) or x.type.shape is None or not x.type.shape:
        return False
    width = x.shape[-1]
    vectors = [match[name] for name in ("scale", "bias") if name in match]
    numbers = [match["eps"]]
    fits = all(v.is_constant and tuple(v.shape) == (width,) for v in vectors)
    return fits and all(n.constant is not None and n.constant.size == 1 for n in numbers)


_MEAN = "ReduceMean(x, axes=LAST, keepdims=1)"
_CENTRED = f"Sub(x, {_MEAN})"
_SQUARES = (f"Pow({_CENTRED}, 2)", f"Mul({_CENTRED}, {_CENTRED})")
_VARIANCES = tuple(f"ReduceMean({square}, axes=LAST, keepdims=1)" for square in _SQUARES)
_NORMALS = tuple(
    form.format(centred=_CENTRED, variance=variance)
    for variance in _VARIANCES
    for form in (
        "Div({centred}, Sqrt(Add({variance}, eps)))",
        "Mul({centred}, Reciprocal(Sqrt(Add({variance}, eps))))",
        "Mul({centred}, Div(1, Sqrt(Add({variance}, eps))))",
        "Mul({centred}, Pow(Add({variance}, eps), -0.5))",
    )
)
_MEAN_SQUARES = (
    "ReduceMean(Pow(x, 2), axes=LAST, keepdims=1)",
    "ReduceMean(Mul(x, x), axes=LAST, keepdims=1)",
)
_ROOT_NORMALS = tuple(
    form.format(mean=mean)
    for mean in _MEAN_SQUARES
    for form in (
        "Div(x, Sqrt(Add({mean}, eps)))",
        "Mul(x, Reciprocal(Sqrt(Add({mean}, eps))))",
        "Mul(x, Div(1, Sqrt(Add({mean}, eps))))",
        "Mul(x, Pow(Add({mean}, eps), -0.5))",
    )
)

RULES: tuple[Rule, ...] = (
    # Normalisations over the last axis.
    *(
        Rule(
            "LayerNormalization",
            f"Add(Mul({normal}, scale), bias)",
            "LayerNormalization(x, scale, bias, axis=-1, epsilon=eps)",
            _normalises_last_axis,
        )
        for normal in _NORMALS
    ),
    *(
        Rule(
            "RMSNormalization",
            f"Mul({normal}, scale)",
            "RMSNormalization(x, scale, axis=-1, epsilon=eps)",
            _normalises_last_axis,
        )
        for normal in _ROOT_NORMALS
    ),
    # GELU, exact and by tanh (Hendrycks and Gimpel, arXiv 1606.08415).
    Rule("Gelu", "Mul(Mul(x, Add(Erf(Div(x, 1.41421356)), 1)), 0.5)", "Gelu(x)"),
    Rule("Gelu", "Mul(Mul(x, Add(Erf(Mul(x, 0.70710678)), 1)), 0.5)", "Gelu(x)"),
    Rule("Gelu", "Mul(x, Mul(Add(Erf(Div(x, 1.41421356)), 1), 0.5))", "Gelu(x)"),
    Rule("Gelu", "Mul(x, Mul(Add(Erf(Mul(x, 0.70710678)), 1), 0.5))", "Gelu(x)"),
    Rule("Gelu", "Mul(Mul(x, 0.5), Add(Erf(Div(x, 1.41421356)), 1))", "Gelu(x)"),
    Rule("Gelu", "Mul(Mul(x, 0.5), Add(Erf(Mul(x, 0.70710678)), 1))", "Gelu(x)"),
    Rule(
        "Gelu by tanh",
        "Mul(Mul(x, 0.5), Add(Tanh(Mul(Add(x, Mul(Pow(x, 3), 0.044715)), 0.7978845608)), 1))",
        "Gelu(x, approximate='tanh')",
    ),
    # Hard activations.
    Rule("HardSwish", "Mul(x, HardSigmoid(x, alpha=0.16666667, beta=0.5))", "HardSwish(x)"),
    Rule("HardSwish", "Div(Mul(x, Clip(Add(x, 3), 0, 6)), 6)", "HardSwish(x)"),
    Rule("HardSwish", "Mul(x, Div(Clip(Add(x, 3), 0, 6), 6))", "HardSwish(x)"),
    Rule("HardSwish", "Mul(x, Mul(Clip(Add(x, 3), 0, 6), 0.16666667))", "HardSwish(x)"),
    # A mean over all spatial axes.
    Rule(
        "GlobalAveragePool",
        "ReduceMean(x, axes=SPATIAL, keepdims=1)",
        "GlobalAveragePool(x)",
        lambda match: 3 <= len(match["x"].shape) <= 5,
    ),
)
