"""Recognition: what exporters spell out in small operators gets its name back.

Every spelling is one row. Kernels then compute a whole normalisation in one pass over a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from tuili.ir import Graph, TensorType, Value
from tuili.ops.contents import Contents
from tuili.passes.patterns import Condition, Match, Rule, apply_rules


def recognise(graph: Graph, contents: Contents) -> bool:
    """Name what is spelt out, until nothing more is found."""
    changed = False
    while apply_rules(graph, RULES, contents):
        changed = True
    return changed


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype.is_float


def _normalises_last_axis(match: Match) -> bool:
    """Scale and bias, where matched, are vectors of the last axis; epsilon is one number."""
    x = match["x"]
    if not _is_float(x) or not x.tensor.shape or not isinstance(x.shape[-1], int):
        return False
    width = x.shape[-1]
    vectors = [match[name] for name in ("scale", "bias") if name in match]
    fits = all(v.is_constant and tuple(v.shape) == (width,) for v in vectors)
    epsilon = match["eps"].constant
    return fits and epsilon is not None and epsilon.size == 1


def _is_scaled_by_a_number(match: Match) -> bool:
    factor = match["a"].constant
    return _is_float(match["x"]) and factor is not None and factor.size == 1


def _is_picture(match: Match) -> bool:
    """What is over the last axis of a sequence is no pooling, unless a convolution made it."""
    x = match["x"]
    if not _is_float(x):
        return False
    return 4 <= len(x.shape) <= 5 or (len(x.shape) == 3 and _is_of_signal(x))


def _is_of_signal(x: Value) -> bool:
    """Whether a convolution made a value, or an activation of one."""
    node = x.producer
    if node is not None and node.op != "Conv" and len(node.inputs) == 1:
        node = node.required(0).producer
    return node is not None and node.op == "Conv"


def _spellings(forms: Iterable[str], **parts: Iterable[str]) -> tuple[str, ...]:
    """Every form with every spelling of the parts named in it."""
    choices = [dict(zip(parts, chosen, strict=True)) for chosen in product(*parts.values())]
    return tuple(form.format(**choice) for choice in choices for form in forms)


_MEAN = "ReduceMean(x, axes=LAST, keepdims=1)"
_CENTRED = f"Sub(x, {_MEAN})"
_VARIANCES = _spellings(
    ["ReduceMean({square}, axes=LAST, keepdims=1)"],
    square=[f"Pow({_CENTRED}, 2)", f"Mul({_CENTRED}, {_CENTRED})"],
)
_MEAN_SQUARES = _spellings(
    ["ReduceMean({square}, axes=LAST, keepdims=1)"], square=["Pow(x, 2)", "Mul(x, x)"]
)
_INVERSES = ("Reciprocal(Sqrt({v}))", "Div(1, Sqrt({v}))", "Pow({v}, -0.5)")
_INVERSE_DEVIATIONS = tuple(
    inverse.format(v=f"Add({variance}, eps)") for variance in _VARIANCES for inverse in _INVERSES
)


def _normals(centred: str, variances: Iterable[str]) -> tuple[str, ...]:
    """What is centred, divided by the root of its variance."""
    forms = [f"Div({centred}, Sqrt({{v}}))", *(f"Mul({centred}, {each})" for each in _INVERSES)]
    return tuple(form.format(v=f"Add({variance}, eps)") for variance in variances for form in forms)


_NORMALS = _normals(_CENTRED, _VARIANCES)
_ROOT_NORMALS = _normals("x", _MEAN_SQUARES)

# GELU, exact and by tanh (Hendrycks and Gimpel, arXiv 1606.08415).
_HALVES = ("Mul(Mul(x, {one}), 0.5)", "Mul(x, Mul({one}, 0.5))", "Mul(Mul(x, 0.5), {one})")
_GELUS = _spellings(
    _HALVES, one=["Add(Erf(Div(x, 1.41421356)), 1)", "Add(Erf(Mul(x, 0.70710678)), 1)"]
)
_CUBES = ("Pow(x, 3)", "Mul(Mul(x, x), x)")
_TANH_GELUS = _spellings(
    _HALVES,
    one=[
        *_spellings(
            ["Add(Tanh(Mul(Add(x, Mul({cube}, 0.044715)), 0.7978845608)), 1)"], cube=_CUBES
        ),
        "Add(Tanh(Mul(Mul(x, 0.7978845608), Add(Mul(Mul(x, x), 0.044715), 1))), 1)",
        "Add(Tanh(Mul(x, Add(Mul(Mul(x, x), 0.0356774081), 0.7978845608))), 1)",
    ],
)

_LAYER_NORM = "LayerNormalization(x, {}, axis=-1, epsilon=eps)"
_BELOW_LARGEST = "Sub(x, ReduceMax(x, axes=LAST, keepdims=1))"
_EXPONENTIALS = f"Exp({_BELOW_LARGEST})"
_SIXTHS = ("Div({part}, 6)", "Mul({part}, 0.16666667)")
_RAMP = "Clip(Add(x, 3), 0, 6)"


def _rules(
    name: str, patterns: Iterable[str], replacement: str, condition: Condition | None = None
) -> list[Rule]:
    accept = condition or (lambda match: _is_float(match["x"]))
    return [Rule(name, pattern, replacement, accept) for pattern in patterns]


RULES: tuple[Rule, ...] = (
    # Normalisations over the last axis; the longest spelling comes first.
    *_rules(
        "LayerNormalization",
        _spellings(["Add(Mul({normal}, scale), bias)"], normal=_NORMALS),
        _LAYER_NORM.format("scale, bias"),
        _normalises_last_axis,
    ),
    *_rules(
        "LayerNormalization with its scale in the deviation",
        _spellings(
            [f"Add(Mul(x, Mul({{i}}, scale)), Sub(bias, Mul({_MEAN}, Mul({{i}}, scale))))"],
            i=_INVERSE_DEVIATIONS,
        ),
        _LAYER_NORM.format("scale, bias"),
        _normalises_last_axis,
    ),
    *_rules(
        "LayerNormalization without bias",
        _spellings(["Mul({normal}, scale)"], normal=_NORMALS),
        _LAYER_NORM.format("scale"),
        _normalises_last_axis,
    ),
    *_rules(
        "LayerNormalization alone", _NORMALS, _LAYER_NORM.format("ONES"), _normalises_last_axis
    ),
    *_rules(
        "RMSNormalization",
        _spellings(["Mul({normal}, scale)"], normal=_ROOT_NORMALS),
        "RMSNormalization(x, scale, axis=-1, epsilon=eps)",
        _normalises_last_axis,
    ),
    # Softmax.
    *_rules(
        "Softmax",
        [f"Div({_EXPONENTIALS}, ReduceSum({_EXPONENTIALS}, axes=LAST, keepdims=1))"],
        "Softmax(x, axis=-1)",
    ),
    *_rules("LogSoftmax", ["Log(Softmax(x, axis=LAST))"], "LogSoftmax(x, axis=-1)"),
    # It subtracts the largest itself; CogView's scores are scaled afterwards (arXiv 2105.13290).
    *_rules(
        "Softmax of what has its largest subtracted",
        [f"Softmax({_BELOW_LARGEST}, axis=LAST)"],
        "Softmax(x, axis=-1)",
    ),
    *_rules(
        "Softmax of what has its largest subtracted, scaled",
        [f"Softmax(Mul({_BELOW_LARGEST}, a), axis=LAST)"],
        "Softmax(Mul(x, a), axis=-1)",
        _is_scaled_by_a_number,
    ),
    # Activations.
    *_rules("Gelu", _GELUS, "Gelu(x)"),
    *_rules("Gelu by tanh", _TANH_GELUS, "Gelu(x, approximate='tanh')"),
    *_rules(
        "HardSwish",
        [
            "Mul(x, HardSigmoid(x, alpha=0.16666667, beta=0.5))",
            *(s.format(part=f"Mul(x, {_RAMP})") for s in _SIXTHS),
            *(f"Mul(x, {s.format(part=_RAMP)})" for s in _SIXTHS),
        ],
        "HardSwish(x)",
    ),
    *_rules(
        "HardSigmoid",
        [s.format(part=_RAMP) for s in _SIXTHS],
        "HardSigmoid(x, alpha=0.16666667, beta=0.5)",
    ),
    *_rules("Softplus", ["Log(Add(Exp(x), 1))"], "Softplus(x)"),
    *_rules("Mish", ["Mul(x, Tanh(Softplus(x)))"], "Mish(x)"),
    # A mean, or what is largest, over all spatial axes.
    *_rules(
        "GlobalAveragePool",
        ["ReduceMean(x, axes=SPATIAL, keepdims=1)"],
        "GlobalAveragePool(x)",
        _is_picture,
    ),
    *_rules(
        "GlobalAveragePool, flat",
        ["ReduceMean(x, axes=SPATIAL, keepdims=0)"],
        "Flatten(GlobalAveragePool(x))",
        _is_picture,
    ),
    *_rules(
        "GlobalMaxPool",
        ["ReduceMax(x, axes=SPATIAL, keepdims=1)"],
        "GlobalMaxPool(x)",
        _is_picture,
    ),
    *_rules(
        "GlobalMaxPool, flat",
        ["ReduceMax(x, axes=SPATIAL, keepdims=0)"],
        "Flatten(GlobalMaxPool(x))",
        _is_picture,
    ),
)
