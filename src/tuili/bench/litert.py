"""LiteRT as an engine to compare with: it runs the `.tflite` file that lies beside the ONNX file.

Nothing that is kept up converts ONNX without TensorFlow, so the file is for the user to bring.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tuili.errors import Unsupported
from tuili.tensors import Array


def load_litert(
    path: Path, feeds: Mapping[str, Array], threads: int
) -> tuple[Callable[[], list[Array]], float, Path]:
    """A function that answers the feeds, the seconds that loading took, and the file."""
    from ai_edge_litert import interpreter  # pyright: ignore[reportMissingImports]

    file = path.with_suffix(".tflite")
    if not file.exists():
        raise Unsupported(f"LiteRT runs {file.name} beside {path.name}, which is not there")
    start = time.perf_counter()
    runtime: Any = interpreter.Interpreter(model_path=str(file), num_threads=threads)
    runtime.allocate_tensors()
    loaded = time.perf_counter() - start
    slots = runtime.get_input_details()
    wanted = [tuple(int(dim) for dim in slot["shape"]) for slot in slots]
    given = [array.shape for array in feeds.values()]
    if wanted != given:
        raise Unsupported(f"{file.name} takes inputs of shapes {wanted}, the model {given}")
    arrays = list(feeds.values())
    outputs = [slot["index"] for slot in runtime.get_output_details()]

    def answer() -> list[Array]:
        for slot, array in zip(slots, arrays, strict=True):
            runtime.set_tensor(slot["index"], array)
        runtime.invoke()
        return [np.asarray(runtime.get_tensor(index)) for index in outputs]

    return answer, loaded, file
