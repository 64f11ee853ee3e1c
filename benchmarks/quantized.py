"""Quantized forms of the real models, made with onnxruntime's own quantizer.

`python -m benchmarks.quantized [NAME]...` makes them and prints their paths. Static forms are
calibrated on 16 pictures, per channel, in both of onnxruntime's formats: QDQ (float operators
between DequantizeLinear and QuantizeLinear) and QOperator (QLinearConv and the like).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fetch import locked
from benchmarks.models import MODELS, Feeds, RealModel

CALIBRATION_PICTURES = 16


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A quantized form of a real model."""

    name: str
    source: str
    make: Callable[[RealModel, Path], None]

    @property
    def model(self) -> RealModel:
        """The model that it was made from."""
        return MODELS[self.source]

    def path(self) -> Path:
        """The file, made on first use."""
        source = self.model.path()
        with locked(self.name) as cache:
            target = cache / "onnx" / f"{self.name}.onnx"
            if not target.exists():
                unfinished = target.with_suffix(".part")
                logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's advice to the root log
                self.make(self.model, unfinished)
                unfinished.rename(target)
        return source.with_name(target.name) if source.parent == target.parent else target

    def pictures(self, count: int, seed: int) -> Iterator[Feeds]:
        """Inputs of batch 1 that differ from those of other seeds."""
        rng = np.random.default_rng(seed)
        for _ in range(count):
            yield self.model.feeds(rng, self.model.sizes[0])


def _static(name: str, source: str, form: str) -> QuantizedModel:
    def make(model: RealModel, target: Path) -> None:
        from onnxruntime import quantization

        library: Any = quantization
        prepared = target.with_suffix(".prepared")
        _prepare(model.path(), prepared)
        library.quantize_static(
            str(prepared),
            str(target),
            _Pictures(made.pictures(CALIBRATION_PICTURES, seed=11)),
            quant_format=library.QuantFormat[form],
            per_channel=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
        )
        prepared.unlink()

    made = QuantizedModel(name, source, make)
    return made


def _prepare(source: Path, target: Path) -> None:
    """Shapes inferred, in a form that the quantizer knows: opset 17, sums of two as Add."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(source)
    for node in model.graph.node:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", 17))
    onnx.save(model, target)
    quant_pre_process(str(target), str(target), skip_symbolic_shape=True)


def _dynamic(name: str, source: str) -> QuantizedModel:
    def make(model: RealModel, target: Path) -> None:
        from onnxruntime import quantization

        library: Any = quantization
        library.quantize_dynamic(
            str(model.path()), str(target), weight_type=library.QuantType.QInt8, per_channel=True
        )

    return QuantizedModel(name, source, make)


class _Pictures:
    """What onnxruntime's calibration asks for its inputs."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self._feeds = feeds

    def get_next(self) -> Feeds | None:
        """The next inputs, None at the end."""
        return next(self._feeds, None)


QUANTIZED = {
    made.name: made
    for made in (
        _static("efficientnet_lite0_qdq", "efficientnet_lite0", "QDQ"),
        _static("efficientnet_lite0_qoperator", "efficientnet_lite0", "QOperator"),
        _static("resnet50_qdq", "resnet50", "QDQ"),
        _static("resnet50_qoperator", "resnet50", "QOperator"),
        _dynamic("minilm_dynamic", "minilm"),
    )
}


def main() -> None:
    """Make all models, or those named, and print where they are."""
    for name in sys.argv[1:] or QUANTIZED:
        print(f"{name:30} {QUANTIZED[name].path()}", flush=True)


if __name__ == "__main__":
    main()
