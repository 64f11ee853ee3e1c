"""The Python steps of the pipeline: plain functions from arrays to arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.ocr.detection import detector_input, text_boxes
from examples.ocr.geometry import straightened
from examples.ocr.recognition import (
    CLASSIFIER_WIDTH,
    character_list,
    decoded,
    reading_width,
    strips,
    upside_down,
)

Array = np.ndarray[Any, Any]

CHARACTERS = character_list(Path(__file__).with_name("characters.txt").read_text(encoding="utf-8"))


def prepare(image: Array) -> Array:
    """The detector's input: f32[1,3,H,W]."""
    return detector_input(Image.fromarray(image))


def find(image: Array, probability: Array) -> dict[str, Any]:
    """The lines of text: their boxes, their straightened crops, the classifier's input."""
    picture = Image.fromarray(image)
    boxes = text_boxes(probability[0, 0], picture.size)
    crops = [straightened(picture, box) for box in boxes]
    sizes = np.array([(crop.height, crop.width) for crop in crops], np.int64).reshape(-1, 2)
    return {
        "count": len(crops),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4, 2),
        "crops": _stacked(crops, sizes),
        "sizes": sizes,
        "strips": strips(crops, CLASSIFIER_WIDTH),
        "no_text": [],
        "no_confidence": np.zeros(0, np.float32),
    }


def arrange(crops: Array, sizes: Array, angles: Array) -> list[Array]:
    """The reader's strips, the right way up, each as wide as its line."""
    pictures = [
        Image.fromarray(crop[:height, :width])
        for crop, (height, width) in zip(crops, sizes, strict=True)
    ]
    if upside_down(pictures, angles):
        pictures = [picture.rotate(180) for picture in pictures]
    return [strips([picture], reading_width(picture))[0] for picture in pictures]


def decode(scores: list[Array]) -> dict[str, Any]:
    """Text and confidence of every line."""
    lines = [decoded(each, CHARACTERS) for each in scores]
    return {
        "text": [text for text, _ in lines],
        "confidence": np.array([confidence for _, confidence in lines], np.float32),
    }


def _stacked(crops: list[Image.Image], sizes: Array) -> Array:
    """u8[N,H,W,3]: crops in the top left corners of the largest one's frame."""
    height, width = sizes.max(axis=0, initial=1)
    stack = np.zeros((len(crops), height, width, 3), np.uint8)
    for frame, crop in zip(stack, crops, strict=True):
        frame[: crop.height, : crop.width] = np.asarray(crop)
    return stack
