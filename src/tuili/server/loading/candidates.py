"""The back ends that may run a model version, best first; an ONNX file is compiled on the way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tuili.errors import TuiliError
from tuili.precision import EXACT, PRECISIONS
from tuili.server.loading.layouts import apart
from tuili.server.options import ServerOptions
from tuili.server.repository.compiling import cache_folder, compiled
from tuili.server.repository.config import ModelConfig
from tuili.server.repository.layout import model_file
from tuili.server.repository.model_parameters import EXECUTORS, choice

_log = logging.getLogger("tuili.server")

# Back ends whose models are wholly described by their configuration.
_FILELESS: Final = ("identity",)


def candidates(
    version: Path, config: ModelConfig, options: ServerOptions, causes: list[TuiliError]
) -> Iterator[tuple[str, Path]]:
    """The back ends that may run this version, best first, each with the file for it.

    An ONNX file is compiled here, when its turn comes; what hinders that is added to `causes`.
    """
    if config.backend in _FILELESS:
        yield config.backend, version
        return
    path = model_file(version, config.model_filename)
    source = path / "model.onnx" if path.is_dir() and path.name == "model.onnx" else path
    if source.suffix == ".onnx":
        yield from _onnx_candidates(source, config, options, causes)
    elif path.suffix == ".py":
        yield "python", path
    elif config.backend in ("", "tuili", "onnxruntime"):
        yield "tuili", path
        yield "mixed", path
    else:
        yield config.backend, path


def _onnx_candidates(
    source: Path, config: ModelConfig, options: ServerOptions, causes: list[TuiliError]
) -> Iterator[tuple[str, Path]]:
    executor = choice(config, "executor", options.onnx_executor, EXECUTORS)
    precision = choice(config, "precision", EXACT, PRECISIONS)
    if executor != "onnxruntime":
        try:
            artifact = compiled(source, cache_folder(options.cache), apart(config), precision)
        except TuiliError as error:
            causes.append(error)
        else:
            yield "tuili", artifact
            yield "mixed", artifact
    fallback = executor == "auto" and find_spec("onnxruntime") is not None
    if fallback:
        _log.warning("%s runs in ONNX Runtime, as tuili cannot: %s", source, causes[0])
    if fallback or executor == "onnxruntime":
        yield "onnxruntime", source
