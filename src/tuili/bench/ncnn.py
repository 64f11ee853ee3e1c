"""ncnn as an engine to compare with: pnnx converts the ONNX file, a new extractor runs each time.

pnnx is run as the program that its package brings: importing the package needs torch. Tensors of
ncnn have no batch, so only inputs of one row are asked.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tuili.errors import Unsupported
from tuili.tensors import Array

_KINDS = {"float32": "f32", "int64": "i64", "int32": "i32"}


def load_ncnn(
    path: Path, feeds: Mapping[str, Array], threads: int
) -> tuple[Callable[[], list[Array]], float]:
    """A function of no arguments that answers the feeds, and the seconds that loading took."""
    import ncnn  # pyright: ignore[reportMissingImports]

    runtime: Any = ncnn
    for name, array in feeds.items():
        if array.ndim < 2 or array.shape[0] != 1 or array.dtype.name not in _KINDS:
            raise Unsupported(
                f"ncnn takes one row of f32 or whole numbers, input {name!r} is "
                f"{array.dtype.name} {'x'.join(map(str, array.shape))}"
            )
    with tempfile.TemporaryDirectory(prefix="tuili-ncnn-") as folder:
        files = _convert(path, feeds, Path(folder))
        start = time.perf_counter()
        net = runtime.Net()
        net.opt.num_threads = threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.load_param(str(files[0]))
        net.load_model(str(files[1]))
        loaded = time.perf_counter() - start
    arrays = [runtime.Mat(np.ascontiguousarray(array[0])).clone() for array in feeds.values()]
    outputs = net.output_names()

    def answer() -> list[Array]:
        extractor = net.create_extractor()
        for at, array in enumerate(arrays):
            extractor.input(f"in{at}", array)
        return [np.array(extractor.extract(name)[1])[None] for name in outputs]

    return answer, loaded


def _convert(path: Path, feeds: Mapping[str, Array], folder: Path) -> tuple[Path, Path]:
    """The network and its weights as ncnn reads them."""
    spec = find_spec("pnnx")
    assert spec is not None  # `engines` looked for it
    assert spec.origin is not None
    source = folder / "model.onnx"
    source.symlink_to(path.resolve())
    shapes = ",".join(
        f"[{','.join(map(str, array.shape))}]{_KINDS[array.dtype.name]}" for array in feeds.values()
    )
    program = Path(spec.origin).with_name("pnnx")
    done = subprocess.run(
        [program, source, f"inputshape={shapes}", "fp16=0"],
        capture_output=True, text=True, errors="replace", check=False, cwd=folder,
    )  # fmt: skip
    files = folder / "model.ncnn.param", folder / "model.ncnn.bin"
    if not files[0].exists():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it printed nothing"]
        raise Unsupported(f"{path.name}: pnnx made no model: {last[0]}")
    return files
