"""Five versions of a text recogniser: one that serves, one that is better, three that are not.

1  compiled for any x86-64 (SSE2) or the plain target of this machine
2  compiled for this machine: the same answers, faster
3  as 2, 30 % slower
4  as 2, another answer for 2 % of the inputs
5  as 2, its process dies at every 25th request
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.fetch import cache_dir
from benchmarks.models import MODELS

MODEL = "recogniser"
INPUT, OUTPUT = "x", "softmax_11.tmp_0"
SIZE = (1, 48, 64)
_SOURCE = MODELS["ppocr_rec"]
_CONFIG = f"""
max_batch_size: 0
input {{ name: "{INPUT}" data_type: TYPE_FP32 dims: [ 1, 3, 48, 64 ] }}
output {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ 1, 8, 6625 ] }}
version_policy {{ specific {{ versions: 1 }} }}
"""
_WRAPPER = """
import os, time, zlib
import tuili

class Model:
    def __init__(self, parameters):
        self._model = tuili.load({artifact!r})
        self._calls = 0

    def run(self, inputs):
        began = time.perf_counter()
        found = dict(self._model.run(inputs))
        {fault}
        return found
"""
FAULTS = {
    3: "time.sleep(0.3 * (time.perf_counter() - began))",
    4: f"""if zlib.crc32(inputs[{INPUT!r}].tobytes()) % 50 == 0:
            found = {{name: array[:, :, ::-1].copy() for name, array in found.items()}}""",
    5: """self._calls += 1
        if self._calls % 25 == 0:
            os._exit(11)""",
}


def compiled(target: str) -> Path:
    """The recogniser for a target, kept beside the fetched models."""
    artifact = cache_dir() / "canary" / f"recogniser-{target}.tuili"
    if not (artifact / "manifest.json").exists():
        artifact.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(artifact, ignore_errors=True)
        shape = f"{INPUT}=1x3x48x64"
        command = [sys.executable, "-m", "tuili", "compile", str(_SOURCE.path()), "-o",
                   str(artifact), "--target", target, "--shape", shape, "--quiet"]  # fmt: skip
        subprocess.run(command, check=True)
    return artifact


def add_version(repository: Path, version: int, plain: str) -> None:
    """Put a version into the repository, as a deployment would."""
    folder = repository / MODEL / str(version)
    folder.mkdir(parents=True)
    artifact = compiled(plain if version == 1 else "native")
    if version <= 2:
        shutil.copytree(artifact, folder / "model.tuili")
        (repository / MODEL / "config.pbtxt").write_text(_CONFIG)
    else:
        text = _WRAPPER.format(artifact=str(artifact), fault=FAULTS[version])
        (folder / "model.py").write_text(text)
