"""The operators of ONNX Runtime's own domains (com.microsoft*), by family."""

from tuili.ops.contrib import (
    attention,
    convolution,
    experts,
    group_query,
    math,
    norms,
    others,
    padding,
    quantized,
    rotary,
    state,
    text,
    weights,
)

FAMILIES = (
    math,
    quantized,
    attention,
    group_query,
    rotary,
    experts,
    padding,
    state,
    weights,
    convolution,
    norms,
    others,
    text,
)
