"""MNN as an engine to compare with: the ONNX file is converted by its own tool, then loaded.

The package asks for versions that onnx cannot live with: `pip install --no-deps MNN`. Its converter
prints a lot and may crash on what it does not know, so it runs as a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tuili.errors import Unsupported
from tuili.importers.onnx import import_model
from tuili.tensors import Array

_CONVERT = "import sys; import MNN; import _tools; _tools.mnnconvert(sys.argv)"


def load_mnn(path: Path, feeds: Mapping[str, Array], threads: int) -> tuple[Any, float]:
    """A function of no arguments that answers the feeds, and the seconds that loading took."""
    import MNN  # pyright: ignore[reportMissingImports]

    runtime: Any = MNN
    outputs = [value.name for value in import_model(path).outputs]
    with tempfile.TemporaryDirectory(prefix="tuili-mnn-") as folder:
        converted = Path(folder) / "model.mnn"
        _convert(path, converted)
        start = time.perf_counter()
        options = {"backend": "CPU", "precision": "high", "numThread": threads}
        manager = runtime.nn.create_runtime_manager((options,))
        names = list(feeds)
        net = runtime.nn.load_module_from_file(
            str(converted), names, outputs, runtime_manager=manager
        )
        loaded = time.perf_counter() - start
    kinds = {"f": runtime.expr.float, "i": runtime.expr.int, "b": runtime.expr.int}
    arrays = [_narrow(array) for array in feeds.values()]
    slots = [
        runtime.expr.placeholder(list(a.shape), runtime.expr.NCHW, kinds[a.dtype.kind])
        for a in arrays
    ]

    def answer() -> list[Array]:
        for slot, array in zip(slots, arrays, strict=True):
            slot.write(array)
        return [np.asarray(found.read()) for found in net.forward(slots)]

    return answer, loaded


def _narrow(array: Array) -> Array:
    """MNN knows 32-bit numbers only."""
    return np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else np.int32)


def _convert(path: Path, converted: Path) -> None:
    command = [sys.executable, "-c", _CONVERT, "-f", "ONNX", "--modelFile", str(path)]
    command += ["--MNNModel", str(converted), "--bizCode", "tuili"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if not converted.exists():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it printed nothing"]
        raise Unsupported(f"{path.name}: MNN's converter made no model: {last[0]}")
