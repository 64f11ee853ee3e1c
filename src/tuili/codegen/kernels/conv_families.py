"""The families of window operators: convolutions and pools."""

from __future__ import annotations

from tuili.codegen.family import Family
from tuili.codegen.kernels.bf16 import conv as bf16_conv
from tuili.codegen.kernels.bf16 import winograd as bf16_winograd
from tuili.codegen.kernels.conv import (
    by_batch,
    columns,
    columns_transposed,
    deform,
    fold,
    winograd,
)
from tuili.codegen.kernels.conv import direct as conv_direct
from tuili.codegen.kernels.conv import global_pool as pool_global
from tuili.codegen.kernels.conv import plain as conv_plain
from tuili.codegen.kernels.conv import plain_pool as pool_plain
from tuili.codegen.kernels.conv import single as conv_single
from tuili.codegen.kernels.conv import transposed as conv_transposed
from tuili.codegen.kernels.conv import window as conv_window
from tuili.codegen.kernels.quantized import conv as quantized_conv
from tuili.codegen.kernels.quantized import depthwise as quantized_depthwise
from tuili.codegen.kernels.quantized import winograd as quantized_winograd

_GLOBAL = (
    Family("pool_global", pool_global.emit_blocked, pool_global.supports_blocked),
    Family("pool_global_plain", pool_global.emit_plain, pool_global.supports_plain),
)

CONV_FAMILIES: dict[str, tuple[Family, ...]] = {
    "Conv": (
        Family("depthwise", conv_window.emit_depthwise, conv_window.supports_depthwise),
        Family("conv_bf16_amx", bf16_conv.emit_amx, bf16_conv.supports_amx),
        Family("conv_by_batch", by_batch.emit, by_batch.supports),
        Family("winograd_bf16", bf16_winograd.emit, bf16_winograd.supports),
        Family("winograd", bf16_winograd.emit, bf16_winograd.supports_floats),
        Family("conv_bf16", bf16_conv.emit, bf16_conv.supports),
        Family("winograd", winograd.emit_winograd, winograd.supports_winograd),
        Family("conv_direct", conv_direct.emit_direct, conv_direct.supports_direct),
        Family("conv_single", conv_single.emit_single, conv_single.supports_single),
        Family("conv_columns", columns.emit_columns, columns.supports_columns),
        Family("conv_plain", conv_plain.emit_plain_conv, conv_plain.supports_plain_conv),
    ),
    "ConvTranspose": (
        Family("conv_single", conv_single.emit_single_transposed, conv_single.supports_single),
        Family(
            "conv_transposed", conv_transposed.emit_transposed, conv_transposed.supports_transposed
        ),
        Family(
            "conv_columns",
            columns_transposed.emit_columns_transposed,
            columns_transposed.supports_columns_transposed,
        ),
        Family("conv_plain", conv_plain.emit_plain_transpose, conv_plain.supports_plain_conv),
    ),
    "Col2Im": (Family("fold", fold.emit_fold, fold.supports_fold),),
    "EachChannelOfFrames": (
        Family("depthwise", conv_window.emit_frames, conv_window.supports_frames),
    ),
    "DeformConv": (Family("conv_deform", deform.emit_deform, deform.supports_deform),),
    "QConv": (
        Family("qdepthwise", quantized_depthwise.emit, quantized_depthwise.supports),
        Family("qconv_amx", quantized_conv.emit_amx, quantized_conv.supports_amx),
        Family("qwinograd", quantized_winograd.emit, quantized_winograd.supports),
        Family("qconv_direct", quantized_conv.emit, quantized_conv.supports),
    ),
    "MaxPool": (
        Family("pool", conv_window.emit_max_pool, conv_window.supports_pool),
        Family("pool_plain", pool_plain.emit_plain_max_pool, pool_plain.supports_plain_pool),
    ),
    "AveragePool": (
        Family("pool", conv_window.emit_average_pool, conv_window.supports_pool),
        Family("pool_plain", pool_plain.emit_plain_average_pool, pool_plain.supports_plain_pool),
    ),
    "LpPool": (
        Family("pool_plain", pool_plain.emit_plain_lp_pool, pool_plain.supports_plain_pool),
    ),
    "GlobalAveragePool": _GLOBAL,
    "GlobalMaxPool": _GLOBAL,
}
