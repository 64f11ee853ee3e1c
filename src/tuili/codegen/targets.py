"""Targets: what an ISA offers to the kernel templates, one row each.

A template speaks of `V` float lanes, of vector types `vf` (V floats) and `vi` (V int32) and of the
small functions of the prelude; everything that differs between ISAs is a field here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

from tuili.errors import InvalidArgument, nearest


@dataclass(frozen=True, slots=True)
class Target:
    """One instruction set."""

    name: str
    machine: str  # platform.machine() of the hosts that run it
    lanes: int  # floats in a vector
    registers: int  # vector registers
    fma: bool
    flags: tuple[str, ...]
    requires: tuple[str, ...]  # CPU features, as Linux spells them
    # Weights that tiles share are cut to stay in the first-level cache, where the second cannot
    # deliver two or three vectors every six cycles; 0: it can.
    near_bytes: int = 0
    bf16: bool = False  # one instruction multiplies pairs of bfloat16
    # Bytes of weights that come from beyond the second-level cache while two vectors are multiplied
    # and added: servers give 3 to 6 a cycle, and Zen 4 takes two cycles for that.
    stream_bytes: int = 4
    amx: bool = False  # registers of tiles multiply bytes and bfloat16

    @property
    def block(self) -> int:
        """The channel block of blocked layouts: one vector."""
        return self.lanes

    @property
    def layout(self) -> str:
        """The blocked layout of the target."""
        return f"nchw{self.block}c"


_AVX2 = ("avx2", "fma", "f16c", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")

_AVX512_BF16 = (*_AVX512, "avx512_vnni", "avx512_bf16")
_BF16_FLAGS = (
    "-march=x86-64-v4",
    "-mavx512vnni",
    "-mavx512bf16",
    "-mprefer-vector-width=512",
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "x86-64-amx",
            "x86_64",
            16,
            32,
            True,
            (*_BF16_FLAGS, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
            (*_AVX512_BF16, "amx_tile", "amx_int8", "amx_bf16"),
            bf16=True,
            amx=True,
        ),
        Target(
            "x86-64-avx512-bf16",
            "x86_64",
            16,
            32,
            True,
            _BF16_FLAGS,
            _AVX512_BF16,
            bf16=True,
            stream_bytes=8,
        ),
        Target(
            "x86-64-avx512-vnni",
            "x86_64",
            16,
            32,
            True,
            ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
            (*_AVX512, "avx512_vnni"),
        ),
        Target(
            "x86-64-avx512",
            "x86_64",
            16,
            32,
            True,
            ("-march=x86-64-v4", "-mprefer-vector-width=512"),
            _AVX512,
        ),
        Target("x86-64-avx2", "x86_64", 8, 16, True, ("-march=x86-64-v3",), _AVX2, 16 * 1024),
        Target("x86-64", "x86_64", 4, 16, False, ("-march=x86-64",), ()),
        Target(
            "aarch64-dotprod",
            "aarch64",
            4,
            32,
            True,
            ("-march=armv8.2-a+dotprod",),
            ("asimddp",),
        ),
        Target("aarch64", "aarch64", 4, 32, True, (), ()),
    )
}


def native_target(
    features: frozenset[str],
    machine: str = platform.machine(),
    compiles: Callable[[Target], bool] = lambda target: True,
) -> Target:
    """The best target that a host with these CPU features runs, and its compiler knows."""
    for target in TARGETS.values():
        if target.machine != machine or not features.issuperset(target.requires):
            continue
        if not target.requires or compiles(target):
            return target
    raise InvalidArgument(f"no target for machine {machine!r}; known: {', '.join(TARGETS)}")


def find_target(name: str) -> Target:
    """The target called `name`."""
    try:
        return TARGETS[name]
    except KeyError:
        raise InvalidArgument(
            f"unknown target {name!r}.{nearest(name, TARGETS)} Known: native, {', '.join(TARGETS)}"
        ) from None
