"""Element types: one row per type with its NumPy, C and KServe names."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tuili.errors import Unsupported, nearest

Array: TypeAlias = npt.NDArray[Any]

# name: (NumPy type, C type, KServe v2 datatype or "", bits)
_ROWS: dict[str, tuple[Any, str, str, int]] = {
    "f32": (np.float32, "float", "FP32", 32),
    "f64": (np.float64, "double", "FP64", 64),
    "f16": (np.float16, "_Float16", "FP16", 16),
    "bf16": (ml_dtypes.bfloat16, "uint16_t", "BF16", 16),
    "f8e4m3fn": (ml_dtypes.float8_e4m3fn, "uint8_t", "", 8),
    "f8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, "uint8_t", "", 8),
    "f8e5m2": (ml_dtypes.float8_e5m2, "uint8_t", "", 8),
    "f8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, "uint8_t", "", 8),
    "f8e8m0": (ml_dtypes.float8_e8m0fnu, "uint8_t", "", 8),
    "f4e2m1": (ml_dtypes.float4_e2m1fn, "uint8_t", "", 4),
    "i8": (np.int8, "int8_t", "INT8", 8),
    "i16": (np.int16, "int16_t", "INT16", 16),
    "i32": (np.int32, "int32_t", "INT32", 32),
    "i64": (np.int64, "int64_t", "INT64", 64),
    "u8": (np.uint8, "uint8_t", "UINT8", 8),
    "u16": (np.uint16, "uint16_t", "UINT16", 16),
    "u32": (np.uint32, "uint32_t", "UINT32", 32),
    "u64": (np.uint64, "uint64_t", "UINT64", 64),
    "i4": (ml_dtypes.int4, "int8_t", "", 4),
    "u4": (ml_dtypes.uint4, "uint8_t", "", 4),
    "i2": (ml_dtypes.int2, "int8_t", "", 2),
    "u2": (ml_dtypes.uint2, "uint8_t", "", 2),
    "bool": (np.bool_, "uint8_t", "BOOL", 8),
    "c64": (np.complex64, "float _Complex", "", 64),
    "c128": (np.complex128, "double _Complex", "", 128),
    "str": (np.object_, "", "BYTES", 0),
}


class DType(Enum):
    """An element type; `DType.F32.value` is its name in text, manifests and errors."""

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    BF16 = "bf16"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0 = "f8e8m0"
    F4E2M1 = "f4e2m1"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    I4 = "i4"
    U4 = "u4"
    I2 = "i2"
    U2 = "u2"
    BOOL = "bool"
    C64 = "c64"
    C128 = "c128"
    STR = "str"

    numpy: np.dtype[Any]
    c: str
    kserve: str
    bits: int
    itemsize: int

    def __init__(self, name: str) -> None:
        kind, self.c, self.kserve, self.bits = _ROWS[name]
        self.numpy = np.dtype(kind)
        # Sub-byte types take one byte per element in memory, as in ml_dtypes.
        self.itemsize = self.numpy.itemsize

    def __repr__(self) -> str:
        return f"DType.{self.name}"

    @property
    def is_float(self) -> bool:
        """Whether the type has a fraction: f64 down to f4e2m1."""
        return self.value[0] == "f" or self is DType.BF16

    @property
    def is_signed_int(self) -> bool:
        """Whether the type is a signed integer."""
        return self.value[0] == "i"

    @property
    def is_unsigned_int(self) -> bool:
        """Whether the type is an unsigned integer (bool is not)."""
        return self.value[0] == "u"

    @property
    def is_int(self) -> bool:
        """Whether the type is an integer (bool is not)."""
        return self.is_signed_int or self.is_unsigned_int

    @classmethod
    def of(cls, dtype: npt.DTypeLike) -> DType:
        """The DType of a NumPy dtype; text dtypes map to `str`."""
        found = np.dtype(dtype)
        if found.kind in "OUST":
            return cls.STR
        try:
            return _BY_NUMPY[found]
        except KeyError:
            raise Unsupported(f"NumPy dtype {found} has no tuili element type") from None

    @classmethod
    def parse(cls, name: str) -> DType:
        """The DType called `name`, such as `f32`."""
        try:
            return cls(name)
        except ValueError:
            hint = nearest(name, _ROWS)
            raise Unsupported(
                f"unknown element type {name!r}.{hint} Known: {', '.join(_ROWS)}"
            ) from None


_BY_NUMPY = {kind.numpy: kind for kind in DType}
