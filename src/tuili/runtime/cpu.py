"""What this machine gives to a process: CPU features, threads it may use, classes of cores.

Every function takes the root of the file system, so that tests can lay out other machines.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROOT = Path("/")
_CGROUPS = "sys/fs/cgroup"
_CPUS = "sys/devices/system/cpu"

# Linux, arch/x86/include/uapi/asm/prctl.h
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18
_TILES = frozenset(("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "amx_complex"))

# macOS names for what Linux calls otherwise; other names differ in case only.
_DARWIN = {"avx1.0": "avx", "avx2": "avx2", "bmi1": "bmi1", "sse4.1": "sse4_1", "sse4.2": "sse4_2"}


def _read(path: Path) -> str:
    """The text of a small system file; empty when it is absent or not for us to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


# -- features --------------------------------------------------------------------------------


@cache
def host_features(root: Path = _ROOT) -> frozenset[str]:
    """CPU features by their Linux names, such as `avx2`, without what the kernel disabled."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            found = frozenset(value.split())
            return granted(found) if root == _ROOT else found
    return _sysctl_features() if platform.system() == "Darwin" else frozenset()


def granted(features: frozenset[str], ask: Callable[[], bool] | None = None) -> frozenset[str]:
    """Without the registers of AMX, which each process has to `ask` its kernel for, if refused."""
    if not features & _TILES or (ask or _ask_for_tiles)():
        return features
    return features - _TILES


def _ask_for_tiles() -> bool:
    if platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0


def _sysctl_features() -> frozenset[str]:
    names = ["machdep.cpu.features", "machdep.cpu.leaf7_features"]
    result = subprocess.run(["sysctl", "-n", *names], capture_output=True, text=True, check=False)
    words = result.stdout.lower().split()
    return frozenset(_DARWIN.get(word, word) for word in words)


def cpu_model(root: Path = _ROOT) -> str:
    """The processor's name for people; the machine's kind where the system does not tell it."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def processor(root: Path = _ROOT) -> str:
    """The processor as measurements are filed under it: hosts often hide its name, not its kind."""
    words: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        words.setdefault(key.strip(), value.strip())
    kinds = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    known = [f"{kind} {words[kind]}" for kind in kinds if kind in words]
    return ", ".join([cpu_model(root), *known])


# -- threads ---------------------------------------------------------------------------------


def available_threads(root: Path = _ROOT) -> int:
    """Threads that can run at once: CPUs of the affinity mask, within the container's quota."""
    quota = cpu_quota(root)
    cpus = len(affinity())
    # Rounded down: threads that meet at barriers wait for the one that the quota stops.
    return cpus if quota is None else max(1, min(cpus, int(quota + 0.01)))


def affinity() -> tuple[int, ...]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """CPUs that the control groups of this process allow (v1 and v2); None without a limit."""
    quotas = [quota for folder in _cgroup_folders(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all groups above: each may set a limit."""
    base = root / _CGROUPS
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            mounts = [base, base / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [base / controllers, base / "cpu"]
        else:
            continue
        inside = Path(path.lstrip("/"))
        if ".." in inside.parts:  # the group lies outside of the container's view
            inside = Path()
        for mount in mounts:
            yield from (mount / folder for folder in (inside, *inside.parents))


def _quota_of(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    if not words:
        words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    try:
        quota, period = int(words[0]), int(words[1])
    except (ValueError, IndexError):  # "max", or a group without this controller
        return None
    return quota / period if quota > 0 and period > 0 else None


# -- classes of cores ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CoreClass:
    """Equal cores; `speed` is relative to the fastest class."""

    cpus: tuple[int, ...]
    speed: float


def core_classes(root: Path = _ROOT, cpus: tuple[int, ...] | None = None) -> tuple[CoreClass, ...]:
    """The classes of the cores that we may use, fastest first (big.LITTLE, P and E cores)."""
    usable = affinity() if cpus is None else cpus
    rates = {cpu: _rate(root / _CPUS / f"cpu{cpu}") for cpu in usable}
    if 0 in rates.values():
        rates = dict.fromkeys(usable, 1)
    fastest = max(rates.values(), default=1)
    # Cores within a tenth are equal: favoured cores of a desktop differ in their top clock only.
    classes: list[tuple[int, list[int]]] = []
    for cpu in sorted(usable, key=lambda cpu: (-rates[cpu], cpu)):
        if not classes or rates[cpu] < 0.9 * classes[-1][0]:
            classes.append((rates[cpu], []))
        classes[-1][1].append(cpu)
    return tuple(CoreClass(tuple(sorted(group)), rate / fastest) for rate, group in classes)


def _rate(folder: Path) -> int:
    """How fast a core is, in units of its own kind; 0 when unknown."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        text = _read(folder / name)
        if text.isdigit():
            return int(text)
    return 0
