"""From crops of single lines to the inputs of the classifier and the reader, and back to text."""

from __future__ import annotations

import numpy as np
from PIL import Image

from examples.ocr.detection import normalised

HEIGHT = 48
CLASSIFIER_WIDTH = 192
NARROWEST = 320  # the reader was trained on strips at least this wide
BATCH = 6
MOST_PADDING = 1.1  # a strip may be widened by this much to share a batch
UPRIGHT, UPSIDE_DOWN = 0, 1  # the classifier's labels
BLANK = 0  # CTC's symbol for "nothing new here"


def strips(crops: list[Image.Image], width: int) -> np.ndarray:
    """f32[N,3,48,width]: crops scaled to 48 rows, at most `width` columns, zeros to the right."""
    batch = np.zeros((len(crops), 3, HEIGHT, width), np.float32)
    for strip, crop in zip(batch, crops, strict=True):
        columns = min(width, natural_width(crop))
        resized = crop.resize((columns, HEIGHT), Image.Resampling.BILINEAR)
        strip[:, :, :columns] = normalised(resized)
    return batch


def natural_width(crop: Image.Image) -> int:
    """Columns of the crop once it has 48 rows."""
    return max(1, round(crop.width * HEIGHT / crop.height))


def reading_width(crop: Image.Image) -> int:
    """Columns of the strip in which the crop is read: whole steps of the reader, never too few."""
    return max(NARROWEST, -(-natural_width(crop) // 8) * 8)


def upside_down(crops: list[Image.Image], angles: np.ndarray) -> bool:
    """Whether the page stands on its head, by a vote of its lines: longer ones count more.

    The classifier errs on single lines that are bent or tilted; a page has one way up.
    `angles` is f32[N,2]: how sure it is of upright and of upside down.
    """
    shapes = np.array([crop.width / crop.height for crop in crops])
    return bool(shapes @ (angles[:, UPSIDE_DOWN] - angles[:, UPRIGHT]) > 0)


def batches_by_width(crops: list[Image.Image]) -> list[tuple[list[int], int]]:
    """Indices of crops to read together, and their width: padding costs time and accuracy."""
    widths = [reading_width(crop) for crop in crops]
    groups: list[list[int]] = []
    for index in sorted(range(len(crops)), key=widths.__getitem__):
        fits = groups and len(groups[-1]) < BATCH
        if fits and widths[index] <= widths[groups[-1][0]] * MOST_PADDING:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [(group, widths[group[-1]]) for group in groups]


def decoded(probabilities: np.ndarray, characters: list[str]) -> tuple[str, float]:
    """Text and mean confidence of one line, from the reader's f32[steps, symbols].

    Greedy CTC: the best symbol of each step, repeats joined, blanks dropped.
    """
    best = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
    fresh = np.append(True, best[1:] != best[:-1]) & (best != BLANK)
    if not fresh.any():
        return "", 0.0
    text = "".join(characters[symbol] for symbol in best[fresh])
    return text.strip(), float(confidence[fresh].mean())


def character_list(metadata: str) -> list[str]:
    """Symbols by index, from the model's `character` metadata: blank first, space last."""
    return ["", *metadata.splitlines(), " "]
