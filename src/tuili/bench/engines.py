"""The engines that can be compared: each loads a model file and answers with NumPy arrays.

All run fp32, unless bf16 is asked of those that know it, on the same number of threads, from the
same inputs, and each through the call its users make: `Model.run`, `InferenceSession.run`,
`InferRequest.infer` with inputs shared. Peers keep their default spinning. With fixed shapes, the
engines that can specialise (tuili, openvino) do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tuili.errors import InvalidArgument, nearest
from tuili.precision import EXACT, Precision
from tuili.tensors import Array

Feeds = Mapping[str, Array]
Answers = list[Array]
Answer: TypeAlias = Callable[[], Answers]
Scenario: TypeAlias = Literal["single-stream", "offline"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What every engine is asked for alike; the scenarios are those of MLPerf Inference.

    A single stream asks when it has its answer, and a run may take all threads. Offline as many ask
    at once as there are threads, each run on one: what counts is how much is answered.
    """

    threads: int = 1
    fixed_shapes: bool = True
    precision: Precision = EXACT  # of tuili and openvino; the others know f32 only
    scenario: Scenario = "single-stream"

    @property
    def is_offline(self) -> bool:
        """Whether many are asked at once."""
        return self.scenario == "offline"

    @property
    def run_threads(self) -> int:
        """Threads of one run."""
        return 1 if self.is_offline else self.threads

    @property
    def most_difference(self) -> float:
        """From the reference: more is another answer."""
        return 0.01 if self.precision == EXACT else 0.1


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine ready to answer one set of inputs, and how long it took to get there."""

    engine: str
    answer: Answer
    load_s: float
    compile_s: float = 0.0  # ahead of time, before any load; almost 0 when it is in the cache
    file: Path | None = None  # what was loaded, where it is not the model's file
    another: Callable[[], Answer] | None = None  # for one more thread; None: one at a time


Loader: TypeAlias = Callable[[Path, Feeds, Settings], Loaded]


def _tuili(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.artifact import is_artifact
    from tuili.host import HostSteps
    from tuili.runtime import load

    start = time.perf_counter()
    artifact = path if is_artifact(path) else _compiled(path, feeds, settings)
    compiled = time.perf_counter()
    model = load(artifact, threads=settings.run_threads, host=HostSteps)
    loaded = time.perf_counter()
    arrays = dict(feeds)

    def answer() -> Answers:
        return list(model.run(arrays).values())

    return Loaded(
        "tuili", answer, loaded - compiled, compiled - start, artifact, another=lambda: answer
    )


def _compiled(path: Path, feeds: Feeds, settings: Settings) -> Path:
    from tuili.compiler import Options, compile_cached

    shapes = {name: value.shape for name, value in feeds.items()} if settings.fixed_shapes else {}
    return compile_cached(path, Options(shapes=shapes, precision=settings.precision)).path


def _onnxruntime(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    import onnxruntime

    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.run_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    start = time.perf_counter()
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own, which have no base but this
        raise RuntimeError(str(error)) from error
    loaded = time.perf_counter() - start
    arrays = dict(feeds)

    def answer() -> Answers:
        return list(session.run(None, arrays))

    return Loaded("onnxruntime", answer, loaded, another=lambda: answer)


def _openvino(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    import openvino

    runtime: Any = openvino
    options = {
        "INFERENCE_NUM_THREADS": settings.threads,
        "PERFORMANCE_HINT": "THROUGHPUT" if settings.is_offline else "LATENCY",
        "INFERENCE_PRECISION_HINT": settings.precision,
        "NUM_STREAMS": settings.threads if settings.is_offline else 1,
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
    compiled = core.compile_model(model, "CPU", options)
    loaded = time.perf_counter() - start
    arrays = [feeds[name] for name in names]
    outputs = range(len(model.outputs))

    def another() -> Answer:
        request = compiled.create_infer_request()

        def answer() -> Answers:
            found = request.infer(arrays, share_inputs=True, share_outputs=True)
            return [found[index] for index in outputs]

        return answer

    return Loaded("openvino", another(), loaded, another=another)


def _own_name(names: set[str], feeds: Feeds) -> str:
    return next(name for name in names if name in feeds)


def _mnn(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.bench.mnn import load_mnn

    answer, loaded = load_mnn(path, feeds, settings.run_threads)
    return Loaded("MNN", answer, loaded)


def _ncnn(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.bench.ncnn import load_ncnn

    answer, loaded = load_ncnn(path, feeds, settings.run_threads)
    return Loaded("ncnn", answer, loaded)


def _litert(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.bench.litert import load_litert

    answer, loaded, file = load_litert(path, feeds, settings.run_threads)
    return Loaded("LiteRT", answer, loaded, file=file)


def _torch(path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    from tuili.bench.torch import load_torch

    answer, loaded = load_torch(path, feeds, settings.run_threads)
    return Loaded("torch", answer, loaded, another=lambda: answer)


LOADERS: dict[str, Loader] = {
    "tuili": _tuili,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "MNN": _mnn,
    "ncnn": _ncnn,
    "LiteRT": _litert,
    "torch": _torch,
}
# The modules that an engine needs, where they are not called as it is.
_MODULES = {
    "ncnn": ("ncnn", "pnnx"),
    "LiteRT": ("ai_edge_litert",),
    "torch": ("torch", "onnx2torch"),
}
# How to get what is no part of `tuili[bench]`. MNN asks for versions that onnx cannot live with.
_INSTALL = {
    "MNN": "--no-deps MNN",
    "ncnn": "--no-deps ncnn pnnx",
    "LiteRT": "ai-edge-litert",
    "torch": "torch torchvision onnx2torch",
}


def _is_installed(name: str) -> bool:
    return all(find_spec(module) is not None for module in _MODULES.get(name, (name,)))


def installed() -> list[str]:
    """The engines that this environment has, tuili first."""
    return [name for name in LOADERS if _is_installed(name)]


def known(names: Iterable[str]) -> None:
    """Raise InvalidArgument for an engine that is not known, or not here."""
    for name in names:
        if name not in LOADERS:
            raise InvalidArgument(
                f"unknown engine {name!r}.{nearest(name, LOADERS)} Known: {', '.join(LOADERS)}"
            )
        if not _is_installed(name):
            wanted = _INSTALL.get(name, "'tuili[bench]'")
            raise InvalidArgument(f"engine {name!r} is not installed: pip install {wanted}")


def load_engine(name: str, path: Path, feeds: Feeds, settings: Settings) -> Loaded:
    """The engine called `name`, with the model of `path` ready to answer `feeds`."""
    known((name,))
    return LOADERS[name](path, feeds, settings)
