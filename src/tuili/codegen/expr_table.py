"""Elementwise operators as C templates: one column for floats, one for integers.

{0} {1} are the operands, {name} attributes, {n[0.5]} numbers, {v} the prefix of the prelude's
functions (v_, s_, d_), {T} the C type, {U} the unsigned type in which integers may wrap around.
A template of the float column serves vectors and scalars: conditions go through {v}select.
"""

from __future__ import annotations

from tuili.codegen.vector_math import ANGLES, FAR, LIBRARY

_SIGMOID = "({n[1]} + {v}exp_short(-({alpha} * {0})))"

FLOATS: dict[str, str] = {
    "Identity": "{0}",
    "Abs": "{v}abs({0})",
    "Neg": "-{0}",
    "Sign": "{v}sign({0})",
    "Floor": "{v}floor({0})",
    "Ceil": "{v}ceil({0})",
    "Round": "{v}round({0})",
    "Reciprocal": "{n[1]} / {0}",
    "Sqrt": "{v}sqrt({0})",
    "Exp": "{v}exp({0})",
    "Log": "{v}log({0})",
    "Erf": "{v}erf({0})",
    "Tanh": "{v}tanh({0})",
    **{name.capitalize(): f"{{v}}{name}({{0}})" for name in (*FAR, *ANGLES, *LIBRARY)},
    "Relu": "{v}max({n[0]}, {0})",
    "LeakyRelu": "{v}select({0} < {n[0]}, {alpha} * {0}, {0})",
    "ThresholdedRelu": "{v}select({0} > {alpha}, {0}, {n[0]})",
    "PRelu": "{v}select({0} < {n[0]}, {0} * {1}, {0})",
    "Elu": "{v}elu({0}, {alpha})",
    "Selu": "{gamma} * {v}elu({0}, {alpha})",
    "Celu": "{v}max({n[0]}, {0}) + {v}min({n[0]}, {alpha} * {v}expm1({0} / {alpha}))",
    "Sigmoid": "{v}sigmoid({0})",
    "HardSigmoid": "{v}hard_sigmoid({0}, {alpha}, {beta})",
    "HardSwish": "{0} * {v}hard_sigmoid({0}, {n[0.16666666666666666]}, {n[0.5]})",
    "Softplus": "{v}softplus({0})",
    "Softsign": "{0} / ({n[1]} + {v}abs({0}))",
    "Swish": "{0} / " + _SIGMOID,
    "SwiGLU": "{0} / " + _SIGMOID + " * {1}",
    "Mish": "{v}mish({0})",
    "Shrink": "{v}select({0} < -{lambd}, {0} + {bias},"
    " {v}select({0} > {lambd}, {0} - {bias}, {n[0]}))",
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "IsNaN": "{0} != {0}",
}

COMPARISONS: dict[str, str] = {
    "Equal": "{0} == {1}",
    "Less": "{0} < {1}",
    "LessOrEqual": "{0} <= {1}",
    "Greater": "{0} > {1}",
    "GreaterOrEqual": "{0} >= {1}",
    "And": "{0} & {1}",
    "Or": "{0} | {1}",
    "Xor": "{0} ^ {1}",
}

INTS: dict[str, str] = {
    "Identity": "{0}",
    "Abs": "{0} < 0 ? ({T})(0 - ({U}){0}) : {0}",
    "Neg": "({T})(0 - ({U}){0})",
    "Sign": "({T})(({0} > 0) - ({0} < 0))",
    "Relu": "{0} > 0 ? {0} : 0",
    "PRelu": "{0} < 0 ? ({T})(({U}){0} * ({U}){1}) : {0}",
    "Add": "({T})(({U}){0} + ({U}){1})",
    "Sub": "({T})(({U}){0} - ({U}){1})",
    "Mul": "({T})(({U}){0} * ({U}){1})",
    "BitwiseAnd": "({T})({0} & {1})",
    "BitwiseOr": "({T})({0} | {1})",
    "BitwiseXor": "({T})({0} ^ {1})",
    "BitwiseNot": "({T})~{0}",
    "Shrink": "(double){0} < -{r[lambd]} ? ({T})((double){0} + {r[bias]}) :"
    " (double){0} > {r[lambd]} ? ({T})((double){0} - {r[bias]}) : 0",
}
