"""An engine alone in a process: what it costs beside the time of a run.

Memory and processor time of one engine cannot be told from those of others in the same process, so
`costs` runs this file as a program, with the inputs in a file, and reads what it prints.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tuili.bench.engines import Feeds, Settings, load_engine
from tuili.errors import Unsupported
from tuili.tensors import Array

LEAST_S = 0.5  # of runs whose processor time is counted
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Costs:
    """What having an engine costs: `peak_mb` is all memory of its process, Python's too."""

    load_ms: float
    first_run_ms: float
    cpu_ms: float  # processor time of a run, of all threads, spinning ones too
    peak_mb: float
    size_mb: float  # of what is loaded, on disk


def costs(engine: str, file: Path, feeds: Feeds, settings: Settings) -> Costs:
    """Load the engine in a process of its own and ask it; `file` is what it loads."""
    with tempfile.TemporaryDirectory(prefix="tuili-bench-") as folder:
        inputs = Path(folder) / "inputs.npz"
        names = {f"input{at}": name for at, name in enumerate(feeds)}
        np.savez(inputs, **{key: feeds[name] for key, name in names.items()})  # pyright: ignore[reportArgumentType]
        asked = json.dumps([engine, str(file), str(inputs), names, asdict(settings)])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tuili.bench.alone", asked],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Unsupported(f"{engine} alone in a process failed: {last[0]}")
    return Costs(**json.loads(done.stdout.strip().splitlines()[-1]))


def measured(engine: str, file: Path, feeds: Feeds, settings: Settings) -> Costs:
    """The costs of an engine in this process, which has loaded none before."""
    loaded = load_engine(engine, file, feeds, settings)
    start = time.perf_counter()
    loaded.answer()
    first_s = time.perf_counter() - start
    loaded.answer()
    cpu_ms = 1000 * _cpu_seconds(loaded.answer)
    return Costs(1000 * loaded.load_s, 1000 * first_s, cpu_ms, peak_mb(), _size_mb(file))


def peak_mb() -> float:
    """The most memory that this process ever had resident, in MB."""
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1000
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def _cpu_seconds(answer: object) -> float:
    assert callable(answer)
    runs, until = 0, time.perf_counter() + LEAST_S
    start = time.process_time()
    while runs < 3 or time.perf_counter() < until:
        answer()
        runs += 1
    return (time.process_time() - start) / runs


def _size_mb(file: Path) -> float:
    """Of a file, or of all files of a folder."""
    files = [file] if file.is_file() else [each for each in file.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def _inputs(path: str, names: Mapping[str, str]) -> dict[str, Array]:
    with np.load(path) as stored:
        return {name: stored[key] for key, name in names.items()}


def main() -> None:
    """Measure what the only argument asks for, and print it as JSON."""
    engine, file, inputs, names, settings = json.loads(sys.argv[1])
    found = measured(engine, Path(file), _inputs(inputs, names), Settings(**settings))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
