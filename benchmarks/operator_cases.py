"""Single-operator models as a table: realistic sizes, every family of operators, several types.

    case("Conv", "1x64x56x56 =64x64x3x3 =64", pads=[1, 1, 1, 1])

Inputs are words: `1x64` is f32 from a normal distribution, `f16:1x64` of another type, `i64<50:128`
between 0 and 50, `=64` a constant, `[1,-1]` a constant vector and `(2)` a constant number (with a
dot: f32, else i64), `-` missing. `Op/2` has two outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

F16, F64, F32 = 10, 11, 1  # as TensorProto numbers them
I8, U8, I32, I64, BOOL = 3, 2, 6, 7, 9


@dataclass(frozen=True, slots=True)
class OperatorCase:
    """One model of one operator."""

    op: str
    inputs: str
    attrs: dict[str, Any]

    @property
    def name(self) -> str:
        """What distinguishes it."""
        attrs = [f"{key}={_shown(value)}" for key, value in self.attrs.items()]
        return " ".join([self.op, self.inputs, *attrs])


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def case(op: str, inputs: str, **attrs: Any) -> OperatorCase:
    """A row."""
    return OperatorCase(op, inputs, attrs)


MAP, VOLUME, ROWS, FLAT = "1x64x56x56", "1x32x16x28x28", "512x768", "1048576"
P1, P2, P3 = [1] * 4, [2] * 4, [1] * 6

CONVOLUTIONS = (
    case("Conv", f"{MAP} =64x64x3x3 =64", pads=P1),
    case("Conv", f"{MAP} =128x64x1x1 =128"),
    case("Conv", f"{MAP} =128x64x3x3", pads=P1, strides=[2, 2]),
    case("Conv", "1x3x224x224 =64x3x7x7", pads=[3] * 4, strides=[2, 2]),
    case("Conv", f"{MAP} =64x1x3x3", pads=P1, group=64),
    case("Conv", f"{MAP} =64x1x5x5", pads=P2, group=64, strides=[2, 2]),
    case("Conv", f"{MAP} =128x1x3x3", pads=P1, group=64),
    case("Conv", f"{MAP} =64x8x3x3", pads=P1, group=8),
    case("Conv", "1x60x56x56 =60x20x1x1", group=3),
    case("Conv", "1x60x28x28 =240x20x1x1 =240", group=3),
    case("Conv", "1x40x28x28 =80x10x1x1", group=4),
    case("Conv", "1x60x56x56 =60x12x3x3", group=5, pads=P1),
    case("Conv", f"{MAP} =64x64x3x3", pads=P2, dilations=[2, 2]),
    case("Conv", f"{MAP} 64x64x3x3 64", pads=P1),
    case("Conv", f"{MAP} 128x64x1x1"),
    case("Conv", f"{MAP} 64x1x3x3", pads=P1, group=64),
    case("Conv", "1x64x28x28 =64x64x3x3 64", pads=P1),
    case("Conv", "1x256x512 =256x256x5", pads=[2, 2]),
    case("Conv", "1x256x512 =256x1x9", pads=[4, 4], group=256),
    case("Conv", f"{VOLUME} =32x32x3x3x3", pads=P3),
    case("Conv", f"{VOLUME} =32x1x3x3x3", pads=P3, group=32),
    case("Conv", f"{VOLUME} =32x1x5x1x1", pads=[2, 0, 0] * 2, group=32),
    case("Conv", f"{VOLUME} 32x32x3x3x3", pads=P3),
    case("Conv", f"{VOLUME} =64x8x3x3x3", pads=P3, group=4),
    case("Conv", f"f64:{MAP} =f64:64x64x3x3", pads=P1),
    case("Conv", f"f16:{MAP} =f16:64x64x3x3", pads=P1),
    case("ConvTranspose", "1x64x28x28 =64x64x2x2", strides=[2, 2]),
    case("ConvTranspose", "1x64x28x28 =64x64x4x4", strides=[2, 2], pads=P1),
    case("ConvTranspose", "1x64x28x28 =64x64x3x3", strides=[2, 2], pads=P1),
    case("ConvTranspose", "1x64x28x28 =64x1x4x4", strides=[2, 2], pads=P1, group=64),
    case("ConvTranspose", "1x64x28x28 =64x16x4x4", strides=[2, 2], pads=P1, group=4),
    case("ConvTranspose", "1x64x28x28 64x64x4x4", strides=[2, 2], pads=P1),
    case("ConvTranspose", "1x32x8x14x14 =32x32x2x2x2", strides=[2] * 3),
    case("ConvTranspose", "1x32x8x14x14 =32x32x4x4x4", strides=[2] * 3, pads=P3),
    case("ConvTranspose", "1x32x8x14x14 =32x32x3x3x3", strides=[2] * 3, pads=P3),
    case("ConvTranspose", "1x256x128 =256x128x16", strides=[8], pads=[4, 4]),
    case("DeformConv", f"{MAP} =64x64x3x3 1x18x56x56 - 1x9x56x56", pads=P1),
    case("ConvInteger", f"u8<200:{MAP} =i8<9:64x64x3x3", pads=P1),
    case("QLinearConv",
         f"u8<200:{MAP} =f32<1: =u8<9: =i8<9:64x64x3x3 =f32<1: =i8<1: =f32<1: =u8<9:", pads=P1),
    case("Col2Im", "1x576x3136 [56,56] [3,3]", pads=P1),
)  # fmt: skip

POOLS = (
    case("MaxPool", MAP, kernel_shape=[3, 3], strides=[2, 2], pads=P1),
    case("MaxPool", MAP, kernel_shape=[3, 3], pads=P1),
    case("MaxPool/2", MAP, kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", f"u8<200:{MAP}", kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", VOLUME, kernel_shape=[3, 3, 3], strides=[2, 2, 2], pads=P3),
    case("MaxPool", "1x64x4096", kernel_shape=[4], strides=[4]),
    case("AveragePool", MAP, kernel_shape=[3, 3], pads=P1),
    case("AveragePool", MAP, kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", VOLUME, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("AveragePool", VOLUME, kernel_shape=[3, 3, 3], pads=P3),
    case("LpPool", MAP, kernel_shape=[3, 3], strides=[2, 2]),
    case("GlobalAveragePool", MAP),
    case("GlobalMaxPool", MAP),
    case("GlobalLpPool", MAP),
    case("GlobalAveragePool", VOLUME),
    case("MaxUnpool", "1x64x28x28 =i64<3136:1x64x28x28", kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxRoiPool", "1x64x56x56 f32<1:32x5", pooled_shape=[7, 7]),
)

PRODUCTS = (
    case("MatMul", f"{ROWS} =768x768"),
    case("MatMul", "12x128x64 12x64x128"),
    case("MatMul", "1x768 =768x3072"),
    case("MatMul", f"f64:{ROWS} f64:768x768"),
    case("MatMul", f"f64:{ROWS} =f64:768x768"),
    case("MatMul", f"f16:{ROWS} =f16:768x768"),
    case("MatMul", "i32<9:256x256 i32<9:256x256"),
    case("Gemm", f"{ROWS} 1024x768 1024", transB=1),
    case("Gemm", "768x512 =768x1024 =1024", transA=1, alpha=0.5),
    case("Gemm", f"f64:{ROWS} =f64:1024x768 =f64:1024", transB=1),
    case("Einsum", "12x128x64 12x128x64", equation="bik,bjk->bij"),
    case("MatMulInteger", "u8<200:512x768 =i8<9:768x768"),
    case("QLinearMatMul",
         "u8<200:512x768 =f32<1: =u8<9: =i8<9:768x768 =f32<1: =i8<1: =f32<1: =u8<9:"),
    case("Attention", "1x12x128x64 1x12x128x64 1x12x128x64"),
    case("Attention", "1x8x256x64 1x2x256x64 1x2x256x64", is_causal=1),
    case("Det", "256x16x16"),
    case("LSTM/3", "64x1x256 =f32<0.1:1x1024x256 =f32<0.1:1x1024x256 =1x2048", hidden_size=256),
    *(case("LSTM/3", f"64x{batch}x256 =f32<0.1:1x1024x256 =f32<0.1:1x1024x256 =1x2048",
           hidden_size=256) for batch in (2, 4, 8, 16, 32)),
    case("GRU/2", "64x1x256 =f32<0.1:1x768x256 =f32<0.1:1x768x256 =1x1536", hidden_size=256),
    case("RNN/2", "64x1x256 =f32<0.01:1x256x256 =f32<0.01:1x256x256 =1x512", hidden_size=256),
)  # fmt: skip

_UNARY = (
    "Abs", "Asinh", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor",
    "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Swish", "Tan",
    "Tanh", "ThresholdedRelu", "IsNaN", "IsInf",
)  # fmt: skip
ELEMENTWISE = (
    *(case(op, FLAT) for op in _UNARY),
    *(case(op, f"f32<1:{FLAT}") for op in ("Acos", "Asin", "Atanh", "Log", "Sqrt")),
    *(case(op, f"f64:{FLAT}") for op in ("Exp", "Tanh", "Sigmoid", "Erf", "Relu")),
    *(case(op, f"f16:{FLAT}") for op in ("Exp", "Tanh", "Sigmoid", "Gelu", "Relu", "Neg")),
    *(case(op, f"{FLAT} {FLAT}") for op in ("Add", "Mul", "Div", "Max", "Less", "Equal")),
    *(case(op, f"f64:{FLAT} f64:{FLAT}") for op in ("Add", "Mul")),
    *(case(op, f"f16:{FLAT} f16:{FLAT}") for op in ("Add", "Mul")),
    *(case(op, f"i64<99:{FLAT} i64<99:{FLAT}") for op in ("Add", "Mul", "Equal", "Max")),
    *(case(op, f"i32<99:{FLAT} i32<99:{FLAT}") for op in ("Sub", "Less", "BitwiseAnd")),
    *(case(op, f"bool:{FLAT} bool:{FLAT}") for op in ("And", "Or", "Xor", "Equal")),
    case("Not", f"bool:{FLAT}"),
    case("Div", f"i64<99:{FLAT} (7)"),
    case("Mod", f"i64<99:{FLAT} (7)"),
    case("Mod", f"{FLAT} (0.7)", fmod=1),
    case("Mod", f"{FLAT} {FLAT}", fmod=1),
    case("BitShift", f"u8<99:{FLAT} u8<7:{FLAT}", direction="LEFT"),
    case("Pow", f"f32<9:{FLAT} (1.7)"),
    case("Pow", f"{FLAT} (2.0)"),
    case("Add", "64x1024 64x64x1024"),
    case("Mul", "1x64x56x56 1x64x1x1"),
    case("PRelu", f"{MAP} =64x1x1"),
    case("Clip", f"{FLAT} (-1.0) (1.0)"),
    case("Where", f"bool:{FLAT} {FLAT} {FLAT}"),
    case("Where", "bool:1x1x512x512 =f32<1: 8x1x512x512"),
    case("Sum", f"{FLAT} {FLAT} {FLAT}"),
    case("Mean", f"{FLAT} {FLAT} {FLAT}"),
    *(case("Cast", FLAT, to=to) for to in (F16, F64, I32, I64, U8, I8, BOOL)),
    *(case("Cast", f"{kind}:{FLAT}", to=F32) for kind in ("f16", "f64", "bool")),
    *(case("Cast", f"{kind}<99:{FLAT}", to=F32) for kind in ("i64", "i32", "u8", "i8")),
    case("Cast", f"i64<99:{FLAT}", to=I32),
    case("Cast", f"i32<99:{FLAT}", to=I64),
    case("Cast", f"i64<2:{FLAT}", to=BOOL),
    case("Cast", f"bool:{FLAT}", to=I64),
    case("QuantizeLinear", f"{FLAT} =f32<1: =u8<9:"),
    case("QuantizeLinear", f"{MAP} =f32<1:64 =i8<9:64", axis=1),
    case("QuantizeLinear", f"{FLAT} =f32<1: =u16<999:"),
    case("DequantizeLinear", f"u8<200:{FLAT} =f32<1: =u8<9:"),
    case("DequantizeLinear", f"u16<60000:{FLAT} =f32<1: =u16<999:"),
    case("DynamicQuantizeLinear/3", FLAT),
)  # fmt: skip

REDUCTIONS = (
    *(case(f"Reduce{op}", f"{ROWS} [1]")
      for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")),
    *(case(f"Reduce{op}", f"{ROWS} [1]") for op in ("LogSumExp",)),
    case("ReduceLogSum", f"f32<1:{ROWS} [1]"),
    case("ReduceSum", f"{ROWS} [0]"),
    case("ReduceSum", "64x197x768 [1]"),
    case("ReduceMax", f"{ROWS} [0]"),
    case("ReduceMean", f"{MAP} [2,3]"),
    case("ReduceMean", f"{MAP} [1]"),
    case("ReduceSum", f"{FLAT} [0]"),
    case("ReduceSum", f"f64:{ROWS} [1]"),
    case("ReduceSum", f"f64:{ROWS} [0]"),
    case("ReduceMax", f"f64:{ROWS} [1]"),
    case("ReduceSum", f"i64<99:{ROWS} [1]"),
    case("ReduceMax", f"i64<99:{ROWS} [1]"),
    case("ReduceMax", f"f16:{ROWS} [1]"),
    case("ReduceMean", f"f16:{ROWS} [1]"),
    case("ArgMax", ROWS, axis=1),
    case("ArgMax", ROWS, axis=0),
    case("ArgMax", "1x32000", axis=1),
    case("ArgMin", f"f64:{ROWS}", axis=1),
    case("ArgMin", MAP, axis=1),
    case("ArgMax", f"i64<99:{ROWS}", axis=1),
    case("TopK/2", f"{ROWS} [10]"),
    case("TopK/2", f"{ROWS} [768]"),
    case("TopK/2", "1x32000 [50]"),
    case("TopK/2", f"{ROWS} [10]", axis=0),
    case("CumSum", f"{ROWS} (1)"),
    case("CumSum", f"{ROWS} (0)"),
    case("Softmax", ROWS),
    case("Softmax", "64x1024x19", axis=1),
    case("Softmax", f"f16:{ROWS}"),
    case("Softmax", f"f64:{ROWS}"),
    case("LogSoftmax", ROWS),
    case("Hardmax", ROWS),
    case("LayerNormalization", f"{ROWS} =768 =768"),
    case("LayerNormalization", f"f16:{ROWS} =f16:768 =f16:768"),
    case("RMSNormalization", f"{ROWS} =768"),
    case("InstanceNormalization", f"{MAP} =64 =64"),
    case("BatchNormalization", f"{MAP} =64 =64 =64 =f32<1:64"),
    case("MeanVarianceNormalization", MAP),
    case("LpNormalization", ROWS),
    case("LRN", MAP, size=5),
    case("SoftmaxCrossEntropyLoss", "512x1000 i64<1000:512"),
    case("NegativeLogLikelihoodLoss", "512x1000 i64<1000:512"),
    case("Unique/4", "i64<500:65536"),
    case("NonZero", f"bool:{ROWS}"),
    case("Compress", f"{ROWS} bool:512", axis=0),
    case("NonMaxSuppression", "1x2000x4 f32<1:1x4x2000 (50) (0.5) (0.3)"),
    case("RotaryEmbedding", "1x12x256x64 =256x32 =256x32 i64<256:1x256"),
)  # fmt: skip

MOVEMENT = (
    case("Transpose", "1x128x12x64", perm=[0, 2, 1, 3]),
    case("Transpose", "1x64x112x112", perm=[0, 2, 3, 1]),
    case("Transpose", "1x112x112x64", perm=[0, 3, 1, 2]),
    case("Transpose", "1024x1024", perm=[1, 0]),
    case("Transpose", "u8<9:1x224x224x3", perm=[0, 3, 1, 2]),
    case("Transpose", "1000x1000", perm=[1, 0]),
    case("Transpose", "u8<9:1024x1024", perm=[1, 0]),
    case("Transpose", "f16:1024x1024", perm=[1, 0]),
    case("Transpose", "f64:1024x1024", perm=[1, 0]),
    case("Concat", f"{MAP} {MAP}", axis=1),
    case("Concat", "512x256 512x256 512x256", axis=1),
    case("Split/3", "512x2304", axis=1, num_outputs=3),
    case("Slice", "1x64x112x112 [0,0] [112,112] [2,3] [2,2]"),
    case("Slice", "1x64x112x112 [8,8] [104,104] [2,3]"),
    case("Slice", f"{ROWS} [-1] [-9999] [1] [-1]"),
    case("Gather", "30000x384 i64<30000:512"),
    case("Gather", "512x768 [3,5,7,9,11,700]", axis=1),
    case("GatherElements", f"{ROWS} i64<512:{ROWS}", axis=0),
    case("GatherND", "64x64x256 i64<64:4096x2"),
    case("ScatterElements", f"{ROWS} i64<512:128x768 128x768", axis=0),
    case("ScatterElements", f"{ROWS} i64<512:128x768 128x768", axis=0, reduction="add"),
    case("ScatterND", "4096x256 i64<4096:1024x1 1024x256"),
    case("ScatterND", "4096x256 i64<4096:1024x1 1024x256", reduction="add"),
    case("TensorScatter", "1x8x256x64 1x8x1x64 [9]"),
    case("Pad", f"{MAP} [0,0,1,1,0,0,1,1]"),
    case("Pad", f"{MAP} [0,0,3,3,0,0,3,3]", mode="reflect"),
    case("Pad", f"{MAP} [0,0,3,3,0,0,3,3]", mode="edge"),
    case("Expand", "64x1x128 [64,64,128]"),
    case("Tile", "64x64x32 [1,4,2]"),
    case("DepthToSpace", "1x256x28x28", blocksize=2),
    case("DepthToSpace", "1x256x28x28", blocksize=2, mode="CRD"),
    case("SpaceToDepth", MAP, blocksize=2),
    case("Resize", f"{MAP} - [1.0,1.0,2.0,2.0]"),
    case("Resize", f"{MAP} - [1.0,1.0,2.0,2.0]", mode="linear"),
    case("Resize", f"{MAP} - [1.0,1.0,2.0,2.0]", mode="cubic"),
    case("Resize", "1x3x480x640 - - [1,3,224,224]", mode="linear"),
    case("Resize", "1x3x480x640 - - [1,3,224,224]", mode="linear", antialias=1),
    case("Resize", "1x16x16x28x28 - [1.0,1.0,2.0,2.0,2.0]", mode="linear"),
    case("GridSample", f"{MAP} 1x56x56x2"),
    case("GridSample", f"{MAP} 1x56x56x2", mode="cubic"),
    case("GridSample", "1x16x16x28x28 1x16x28x28x3"),
    case("AffineGrid", "4x2x3 [4,3,224,224]"),
    case("CenterCropPad", f"{MAP} [48,64]", axes=[2, 3]),
    case("ReverseSequence", "128x16x256 i64<128:16"),
    case("OneHot", "i64<1000:512 (1000) [0.0,1.0]"),
    case("EyeLike", "1024x1024", dtype=F32),
    case("Trilu", "16x256x256"),
    case("ConstantOfShape", "[1024,1024]"),
    case("Range", "(0) (1000000) (1)"),
    case("Shape", MAP),
    case("Reshape", f"{MAP} [64,3136]"),
    case("Identity", MAP),
    case("DFT", "8x1024x1 - (1)"),
    case("DFT", "8x1000x2 - (1)"),
    case("STFT", "1x16000x1 (160) =400"),
    case("MelWeightMatrix", "(80) (512) (16000) (0.0) (8000.0)"),
    case("HannWindow", "(65536)"),
)

CASES = (*CONVOLUTIONS, *POOLS, *PRODUCTS, *ELEMENTWISE, *REDUCTIONS, *MOVEMENT)
