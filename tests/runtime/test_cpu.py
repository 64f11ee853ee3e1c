"""What the host gives: features, quota, affinity and core classes, from made-up file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuili.runtime.cpu import (
    CoreClass,
    available_threads,
    core_classes,
    cpu_quota,
    granted,
    host_features,
)


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"
SELF = "proc/self/cgroup"

# name: (files, quota)
QUOTAS: dict[str, tuple[dict[str, str], float | None]] = {
    "no cgroups": ({}, None),
    "v2 without limit": ({SELF: "0::/a\n", f"{V2}/a/cpu.max": "max 100000\n"}, None),
    "v2 own limit": ({SELF: "0::/a\n", f"{V2}/a/cpu.max": "150000 100000\n"}, 1.5),
    "v2 limit above": (
        {
            SELF: "0::/a/b/c\n",
            f"{V2}/a/cpu.max": "200000 100000",
            f"{V2}/a/b/cpu.max": "max 100000",
        },
        2.0,
    ),
    "v2 the lowest counts": (
        {SELF: "0::/a/b\n", f"{V2}/a/cpu.max": "300000 100000", f"{V2}/a/b/cpu.max": "50000 50000"},
        1.0,
    ),
    "v2 in a container": ({SELF: "0::/\n", f"{V2}/cpu.max": "400000 100000\n"}, 4.0),
    "v2 group outside of the view": (
        {SELF: "0::/../../x\n", f"{V2}/cpu.max": "400000 100000\n"},
        4.0,
    ),
    "v1 limit": (
        {
            SELF: "5:memory:/m\n4:cpu,cpuacct:/docker/x\n",
            f"{V1}/docker/x/cpu.cfs_quota_us": "250000\n",
            f"{V1}/docker/x/cpu.cfs_period_us": "100000\n",
        },
        2.5,
    ),
    "v1 without limit": (
        {
            SELF: "4:cpu,cpuacct:/x\n",
            f"{V1}/x/cpu.cfs_quota_us": "-1\n",
            f"{V1}/x/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
    "v1 mounted as cpu, in a container": (
        {
            SELF: "4:cpuacct,cpu:/host/path\n",
            f"{V2}/cpu/cpu.cfs_quota_us": "100000\n",
            f"{V2}/cpu/cpu.cfs_period_us": "100000\n",
        },
        1.0,
    ),
    "hybrid": (
        {SELF: "1:name=systemd:/a\n0::/a\n", f"{V2}/unified/a/cpu.max": "100000 100000"},
        1.0,
    ),
    "nonsense": ({SELF: "what\n0::/a\n", f"{V2}/a/cpu.max": "many 0\n"}, None),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_the_quota_is_found(tmp_path: Path, name: str) -> None:
    files, quota = QUOTAS[name]
    assert cpu_quota(lay_out(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("cpus", "quota", "threads"),
    [
        ({0, 1, 2, 3}, "max 100000", 4),
        ({0, 1, 2, 3}, "250000 100000", 2),
        ({0, 1, 2, 3}, "199999 100000", 2),
        ({0, 1, 2, 3}, "20000 100000", 1),
        ({5}, "400000 100000", 1),
    ],
)
def test_threads_are_what_affinity_and_quota_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: set[int], quota: str, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus, raising=False)
    root = lay_out(tmp_path, {SELF: "0::/\n", f"{V2}/cpu.max": quota})
    assert available_threads(root) == threads


def test_this_host_has_threads() -> None:
    assert 1 <= available_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx2 fma\nprocessor\t: 1\nflags\t: fpu\n",
            {"fpu", "avx2", "fma"},
        ),
        ("processor : 0\nFeatures : fp asimd\n", {"fp", "asimd"}),
        ("processor : 0\n", set()),
    ],
)
def test_features_are_read(tmp_path: Path, text: str, features: set[str]) -> None:
    assert host_features(lay_out(tmp_path, {"proc/cpuinfo": text})) == features


CPU = "sys/devices/system/cpu/cpu{}"


def test_classes_come_from_capacity_fastest_first(tmp_path: Path) -> None:
    capacities = [446, 446, 446, 446, 871, 871, 871, 1024]
    files = {f"{CPU.format(i)}/cpu_capacity": f"{c}\n" for i, c in enumerate(capacities)}
    found = core_classes(lay_out(tmp_path, files), tuple(range(8)))
    assert found == (
        CoreClass((7,), 1.0),
        CoreClass((4, 5, 6), 871 / 1024),
        CoreClass((0, 1, 2, 3), 446 / 1024),
    )


def test_classes_come_from_clocks_and_turbo_cores_are_no_class(tmp_path: Path) -> None:
    clocks = [5200, 5100, 5100, 3900, 3900]
    files = {f"{CPU.format(i)}/cpufreq/cpuinfo_max_freq": f"{c}000" for i, c in enumerate(clocks)}
    found = core_classes(lay_out(tmp_path, files), (0, 2, 3))
    assert found == (CoreClass((0, 2), 1.0), CoreClass((3,), 0.75))


def test_unknown_cores_are_equal(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {f"{CPU.format(0)}/cpu_capacity": "1024"})
    assert core_classes(root, (0, 1)) == (CoreClass((0, 1), 1.0),)


@pytest.mark.parametrize("may", [True, False])
def test_tile_registers_are_a_feature_where_the_kernel_gives_them(may: bool) -> None:
    features = frozenset(("avx512f", "amx_tile", "amx_int8", "amx_bf16"))
    assert granted(features, lambda: may) == (features if may else {"avx512f"})


def test_no_kernel_is_asked_for_tiles_that_are_not_there() -> None:
    asked: list[bool] = []
    assert granted(frozenset(("avx2",)), lambda: asked.append(True) or False) == {"avx2"}
    assert not asked
