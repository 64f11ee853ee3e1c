"""Exports networks with random weights: `python -m benchmarks.architectures.export FOLDER CASE...`.

Run with the Python of an environment that has torch and transformers; it never imports tuili.
One JSON line a case: how long it took, or what torch said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.architectures.case import Case
from benchmarks.architectures.inputs import arrays_of, axes_of
from benchmarks.architectures.table import CASES
from benchmarks.architectures.transformers_networks import TINY
from benchmarks.architectures.weights import SEED, randomise

MOST_S = 240
MOST_OUTPUTS = 4
_TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")


class Positional(nn.Module):
    """A network whose inputs come in order, and whose outputs are its first few float tensors."""

    def __init__(self, network: nn.Module, names: list[str], fixed: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.names, self.fixed = network, names, fixed

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.network(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        return tuple(_floats(found))[:MOST_OUTPUTS]


def _floats(found: Any) -> Iterator[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        if found.is_floating_point():
            yield found
    elif isinstance(found, dict):
        for value in found.values():
            yield from _floats(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _floats(value)


class _ByPosition(nn.Module):
    """A network that takes its only input without its name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: torch.Tensor) -> Any:
        return self.network(*inputs.values())


def build(case: Case) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a case, and what its calls always say."""
    if case.library == "timm":
        return _timm(case), {}
    network = _transformers(case)
    return network, dict(case.call)


def _timm(case: Case) -> nn.Module:
    import timm

    sized = {"img_size": case.size} if case.inputs == "square" else {}
    # Some families take no size, and some fix in code what others leave to settings.
    for settings in (case.settings | sized, case.settings, sized, {}):
        try:
            return _ByPosition(timm.create_model(case.network, num_classes=16, **settings))
        except (TypeError, KeyError):
            continue
    raise ValueError(f"timm cannot make {case.network}")


def _transformers(case: Case) -> nn.Module:
    import transformers

    transformers.logging.set_verbosity_error()
    class_name, _, part = case.network.partition(".")
    network_class = getattr(transformers, class_name)
    config = tiny(network_class.config_class, case.settings)
    config._attn_implementation = "eager" if case.exporter == "script" else "sdpa"
    try:
        network = network_class(config)
    except (ValueError, ImportError):
        config._attn_implementation = "eager"
        network = network_class(config)
    if not part:
        return network
    inner = getattr(network, part)
    return inner if case.inputs in {"wave", "mel"} else _ByPosition(inner)


def tiny(config_class: Any, settings: dict[str, Any]) -> Any:
    """The configuration with all sizes small, in its nested configurations as well."""
    kept = _known(config_class) | settings
    for name, nested in getattr(config_class, "sub_configs", {}).items():
        if name not in settings and hasattr(nested, "model_type") and nested.model_type:
            shared = {k: v for k, v in settings.items() if hasattr(_default(nested), k)}
            kept[name] = _known(nested) | shared
    return config_class(**{name: value for name, value in kept.items() if value is not None})


def _default(config_class: Any) -> Any:
    try:
        return config_class()
    except Exception:  # some demand arguments
        return config_class


def _known(config_class: Any) -> dict[str, Any]:
    default = _default(config_class)
    aliases = getattr(config_class, "attribute_map", {})
    kept: dict[str, Any] = {}
    for name, value in TINY.items():
        if name not in aliases and hasattr(default, name):
            old = getattr(default, name)
            if not isinstance(old, list | tuple | dict):
                kept[name] = value
    return kept


def export(case: Case, target: Path) -> None:
    """Write the ONNX file and, beside it, inputs of two sizes."""
    torch.manual_seed(SEED)
    network, fixed = build(case)
    network.eval()
    examples = [arrays_of(case.inputs, which, case.size, case.open_dims) for which in (0, 1)]
    tensors = {name: torch.from_numpy(array) for name, array in examples[0].items()}
    randomise(network, {**tensors, **fixed})
    if case.dtype != "float32":
        kind = getattr(torch, case.dtype)
        network.to(kind)
        tensors = {k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()}
    wrapped = Positional(network, list(tensors), fixed).eval()
    with torch.no_grad():
        found = wrapped(*tensors.values())
    _write(case, wrapped, tensors, len(found), target)
    if case.dtype == "float16":
        examples = [{k: _half(v) for k, v in each.items()} for each in examples]
    saved = {f"{which}/{k}": v for which, each in enumerate(examples) for k, v in each.items()}
    np.savez(target.with_suffix(".npz"), **saved)


def _half(array: Any) -> Any:
    return array.astype(np.float16) if array.dtype == np.float32 else array


def _write(
    case: Case, network: nn.Module, tensors: dict[str, torch.Tensor], outputs: int, target: Path
) -> None:
    axes = axes_of(case.inputs, case.open_dims)
    names = [f"y{index}" for index in range(outputs)]
    shared = {"input_names": list(tensors), "output_names": names, "opset_version": case.version}
    inputs = tuple(tensors.values())
    if case.exporter == "script":
        torch.onnx.export(network, inputs, str(target), dynamic_axes=axes, dynamo=False, **shared)
        return
    auto = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(axes[name], auto) for name in tensors)
    torch.onnx.export(
        network, inputs, str(target), dynamic_shapes={"inputs": shapes}, dynamo=True,
        external_data=False, verbose=False, **shared,
    )  # fmt: skip


def _attempt(case: Case, folder: Path) -> dict[str, Any]:
    target = folder / f"{case.name}.onnx"
    start = time.perf_counter()
    said = ""
    for dims in _fewer_and_fewer(case):
        signal.alarm(MOST_S)
        try:
            unfinished = target.with_suffix(".part")
            export(replace(case, open_dims=dims), unfinished)
            unfinished.with_suffix(".npz").rename(target.with_suffix(".npz"))
            unfinished.rename(target)
            seconds = round(time.perf_counter() - start, 1)
            return {"case": case.name, "open": dims, "seconds": seconds}
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}".strip()[-600:]
        finally:
            signal.alarm(0)
    return {"case": case.name, "error": said}


def _fewer_and_fewer(case: Case) -> list[tuple[str, ...]]:
    """The open dims to try: networks that fix some refuse to leave them open."""
    if case.exporter == "script":
        return [case.open_dims]
    return list(dict.fromkeys((case.open_dims, ("batch",), ())))


def _use_packages(place: str) -> None:
    """Make timm importable, with a torchvision that may be built for another torch.

    Only its transforms of pictures are used; it is imported once its operators are declared.
    """
    sys.path.insert(0, place)
    for name in ("nms", "qnms"):
        _TORCHVISION.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _late(*_: object) -> None:
    raise TimeoutError(f"not exported within {MOST_S} s")


def main() -> None:
    """Export the named cases."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _late)
    _use_packages(os.environ["TIMM_PACKAGES"])
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        print(json.dumps(_attempt(CASES[name], folder)), flush=True)


if __name__ == "__main__":
    main()
