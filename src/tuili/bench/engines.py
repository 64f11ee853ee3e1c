"""The engines that can be compared: each loads a model file and answers with NumPy arrays.

All run fp32, unless bf16 is asked of those that know it, on the same number of threads, from the
same inputs, and each through the call its users make: `Model.run`, `InferenceSession.run`,
`InferRequest.infer` with inputs shared. Peers keep their default spinning. With fixed shapes, the
engines that can specialise (tuili, openvino) do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tuili.errors import InvalidArgument, nearest
from tuili.tensors import Array

Feeds = Mapping[str, Array]
Answers = list[Array]
Precision: TypeAlias = Literal["f32", "bf16"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What every engine is asked for alike."""

    threads: int = 1
    fixed_shapes: bool = True
    precision: Precision = "f32"  # of tuili and openvino; the others know f32 only

    @property
    def most_difference(self) -> float:
        """From the reference: more is another answer."""
        return 0.01 if self.precision == "f32" else 0.1


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine ready to answer one set of inputs, and how long it took to get there."""

    engine: str
    answer: Callable[[], Answers]
    load_s: float
    compile_s: float = 0.0  # ahead of time, before any load; almost 0 when it is in the cache


Loader = Callable[[Path, Feeds, Settings], Loaded]


def _tuili(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.compiler import Options, compile_cached, load

    start = time.perf_counter()
    shapes = {name: value.shape for name, value in feeds.items()}
    options = Options(shapes=shapes if settings.fixed_shapes else {}, precision=settings.precision)
    artifact = compile_cached(path, options)
    compiled = time.perf_counter()
    model = load(artifact.path, threads=settings.threads)
    loaded = time.perf_counter()
    arrays = dict(feeds)
    return Loaded(
        "tuili", lambda: list(model.run(arrays).values()), loaded - compiled, compiled - start
    )


def _onnxruntime(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    import onnxruntime

    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    start = time.perf_counter()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    loaded = time.perf_counter() - start
    arrays = dict(feeds)
    return Loaded("onnxruntime", lambda: list(session.run(None, arrays)), loaded)


def _openvino(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    import openvino

    runtime: Any = openvino
    options = {
        "INFERENCE_NUM_THREADS": settings.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": settings.precision,
        "NUM_STREAMS": 1,
    }
    start = time.perf_counter()
    core = runtime.Core()
    model = core.read_model(path)
    # By position: openvino renames inputs whose names have colons or slashes.
    names = [_own_name(port.get_names(), feeds) for port in model.inputs]
    if settings.fixed_shapes:
        model.reshape(
            {port: feeds[name].shape for port, name in zip(model.inputs, names, strict=True)}
        )
    request = core.compile_model(model, "CPU", options).create_infer_request()
    loaded = time.perf_counter() - start
    arrays = [feeds[name] for name in names]
    outputs = range(len(model.outputs))

    def answer() -> Answers:
        found = request.infer(arrays, share_inputs=True, share_outputs=True)
        return [found[index] for index in outputs]

    return Loaded("openvino", answer, loaded)


def _mnn(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.bench.mnn import load_mnn

    answer, loaded = load_mnn(path, feeds, settings.threads)
    return Loaded("MNN", answer, loaded)


def _own_name(names: set[str], feeds: Feeds) -> str:
    return next(name for name in names if name in feeds)


LOADERS: dict[str, Loader] = {
    "tuili": _tuili,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "MNN": _mnn,  # `pip install --no-deps MNN`
}


def installed() -> list[str]:
    """The engines that this environment has, tuili first."""
    return [name for name in LOADERS if find_spec(name) is not None]


def load_engine(name: str, path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    """The engine called `name`, with the model of `path` ready to answer `feeds`."""
    loader = LOADERS.get(name)
    if loader is None:
        raise InvalidArgument(
            f"unknown engine {name!r}.{nearest(name, LOADERS)} Known: {', '.join(LOADERS)}"
        )
    if find_spec(name) is None:
        raise InvalidArgument(f"engine {name!r} is not installed: pip install 'tuili[bench]'")
    return loader(path, feeds, settings)
