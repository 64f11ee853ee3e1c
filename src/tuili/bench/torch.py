"""PyTorch as an engine to compare with: onnx2torch makes a module of the ONNX file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tuili.errors import Unsupported
from tuili.tensors import Array


def load_torch(
    path: Path, feeds: Mapping[str, Array], threads: int
) -> tuple[Callable[[], list[Array]], float]:
    """A function of no arguments that answers the feeds, and the seconds that loading took."""
    import onnx2torch  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    runtime: Any = torch
    runtime.set_num_threads(threads)
    start = time.perf_counter()
    try:
        module: Any = onnx2torch.convert(str(path)).eval()
    except NotImplementedError as error:  # an operator that the converter does not know
        raise Unsupported(f"{path.name}: onnx2torch: {error}") from error
    loaded = time.perf_counter() - start
    arrays = [runtime.from_numpy(np.ascontiguousarray(array)) for array in feeds.values()]

    def answer() -> list[Array]:
        with runtime.inference_mode():
            found = module(*arrays)
        return [each.numpy() for each in (found if isinstance(found, tuple | list) else [found])]

    return answer, loaded
