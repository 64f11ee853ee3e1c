"""The ONNX backend interface: `onnx.backend.test` and the public scoreboard run tuili through it.

Every model is compiled; `host_steps` names the nodes that Python runs by their NumPy meaning.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.backend.base import Backend, BackendRep

from tuili.compiler import compile as compile_model
from tuili.host import HostSteps
from tuili.runtime import load

LAST: dict[str, str] = {}  # how the model prepared last is run; for reports


class TuiliRep(BackendRep):
    """A model ready to run."""

    def __init__(self, model: ModelProto) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="tuili-backend-")
        artifact = compile_model(model, Path(self._scratch.name) / "model.tuili")
        self.host_steps = list(artifact.manifest.host_steps)
        self._model = load(artifact.path, host=HostSteps)
        self.names = [spec.name for spec in self._model.inputs]
        LAST["how"] = "partly native" if self.host_steps else "native"

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in order, for inputs in order or by name."""
        feeds = (
            inputs if isinstance(inputs, Mapping) else dict(zip(self.names, inputs, strict=False))
        )
        given = {
            spec.name: feeds[spec.name] if spec.is_object else np.asarray(feeds[spec.name])
            for spec in self._model.inputs
            if spec.name in feeds
        }
        return tuple(self._model.run(given).values())


class TuiliBackend(Backend):
    """`onnx.backend.base.Backend` over tuili's compiler, for the CPU."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> TuiliRep:  # noqa: ARG003
        """Import and compile a model."""
        return TuiliRep(model)

    @classmethod
    def run_model(
        cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Prepare and run in one step."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU."""
        return device == "CPU"


prepare = TuiliBackend.prepare
run_model = TuiliBackend.run_model
supports_device = TuiliBackend.supports_device
