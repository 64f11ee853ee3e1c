"""Reads the text of a picture with three networks: detector, angle classifier, line reader."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from examples.ocr.detection import detector_input, text_boxes
from examples.ocr.geometry import Points, straightened
from examples.ocr.recognition import (
    BATCH,
    CLASSIFIER_WIDTH,
    batches_by_width,
    decoded,
    strips,
    upside_down,
)

if TYPE_CHECKING:
    from PIL import Image

# Runs a network by name ("det", "cls", "rec") on its only input and returns its only output.
Infer = Callable[[str, np.ndarray], np.ndarray]

READABLE = 0.5  # lines read with less confidence are not text


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text: where it is, what it says, how sure the reader is."""

    box: Points
    text: str
    confidence: float


@dataclass(slots=True)
class Page:
    """All lines of a picture, and the seconds each stage took."""

    lines: list[Line]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The lines, one below the other."""
        return "\n".join(line.text for line in self.lines)


def read(picture: Image.Image, infer: Infer, characters: list[str]) -> Page:
    """Find, straighten, turn and read the lines of a picture."""
    picture = picture.convert("RGB")
    page = Page([])
    with _timed(page, "prepare"):
        pixels = detector_input(picture)
    with _timed(page, "detect"):
        probability = infer("det", pixels)[0, 0]
    with _timed(page, "boxes"):
        boxes = text_boxes(probability, picture.size)
        crops = [straightened(picture, box) for box in boxes]
    with _timed(page, "classify"):
        if _upside_down(crops, infer):
            boxes = boxes[::-1]
            crops = [crop.rotate(180) for crop in crops[::-1]]
    with _timed(page, "read"):
        readings = _readings(crops, infer, characters)
    page.lines = [
        Line(box, text, confidence)
        for box, (text, confidence) in zip(boxes, readings, strict=True)
        if text and confidence >= READABLE
    ]
    return page


def _upside_down(crops: list[Image.Image], infer: Infer) -> bool:
    groups = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]
    angles = [infer("cls", strips(group, CLASSIFIER_WIDTH)) for group in groups]
    return bool(angles) and upside_down(crops, np.concatenate(angles))


def _readings(
    crops: list[Image.Image], infer: Infer, characters: list[str]
) -> list[tuple[str, float]]:
    readings: list[tuple[str, float]] = [("", 0.0)] * len(crops)
    for group, width in batches_by_width(crops):
        scores = infer("rec", strips([crops[index] for index in group], width))
        for index, probabilities in zip(group, scores, strict=True):
            readings[index] = decoded(probabilities, characters)
    return readings


@contextmanager
def _timed(page: Page, stage: str) -> Generator[None]:
    start = time.perf_counter()
    yield
    page.seconds[stage] = time.perf_counter() - start
