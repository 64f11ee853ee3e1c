"""From a picture to the detector's input, and from its probability map to text boxes.

The detector is a differentiable-binarization network: it marks the shrunken core of each line,
which is then grown back by a distance that follows from the core's area and perimeter.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage.measure import label, regionprops
from skimage.morphology import dilation

from examples.ocr.geometry import Points, grown, side_lengths, tight_rectangle

SHORT_SIDE = 736  # pictures are enlarged until their shorter side has this many pixels
LONG_SIDE = 2016  # and reduced until their longer side has at most this many
STRIDE = 32  # the network's maps halve five times
THRESHOLD = 0.3  # a pixel of a line's core
BOX_THRESHOLD = 0.5  # mean over the pixels of a core
UNCLIP = 1.6
SMALLEST = 3  # pixels: narrower cores are specks


def detector_input(picture: Image.Image) -> np.ndarray:
    """f32[1,3,H,W] in [-1,1], blue first, sides multiples of 32."""
    width, height = picture.size
    scale = max(1.0, SHORT_SIDE / min(width, height))
    scale = min(scale, LONG_SIDE / max(width, height))
    size = tuple(max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (width, height))
    return normalised(picture.resize(size, Image.Resampling.BILINEAR))[None]


def normalised(picture: Image.Image) -> np.ndarray:
    """f32[3,H,W] in [-1,1], blue first: what all three networks were trained on."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) / 127.5 - 1


def text_boxes(probability: np.ndarray, picture_size: tuple[int, int]) -> list[Points]:
    """Rectangles around lines of text, in pixels of the picture, in reading order."""
    rows, columns = probability.shape
    stretch = np.array([picture_size[0] / columns, picture_size[1] / rows])
    mask = dilation(probability > THRESHOLD, np.ones((2, 2), bool))
    boxes: list[Points] = []
    for region in regionprops(label(mask, connectivity=2), intensity_image=probability):
        core = tight_rectangle(_corners(region.coords))
        if min(side_lengths(core)) < SMALLEST or region.intensity_mean < BOX_THRESHOLD:
            continue
        width, height = side_lengths(core)
        distance = width * height * UNCLIP / (2 * (width + height))
        boxes.append(grown(core, distance) * stretch)
    return reading_order(boxes)


def _corners(pixels: np.ndarray) -> Points:
    """The outline of a region as (x, y) points: first and last pixel of each of its rows."""
    rows, starts = np.unique(pixels[:, 0], return_index=True)
    ends = np.append(starts[1:], len(pixels)) - 1
    first, last = pixels[starts, 1], pixels[ends, 1] + 1
    top = np.concatenate([np.column_stack([first, rows]), np.column_stack([last, rows])])
    return np.concatenate([top, top + np.array([0, 1])]).astype(np.float64)


def reading_order(boxes: list[Points]) -> list[Points]:
    """Top to bottom; left to right among boxes whose middles are on the same line."""
    waiting = sorted(boxes, key=lambda box: float(box[:, 1].mean()))
    ordered: list[Points] = []
    while waiting:
        first = waiting[0]
        reach = float(first[:, 1].mean()) + side_lengths(first)[1] / 2
        line = [box for box in waiting if float(box[:, 1].mean()) <= reach]
        waiting = waiting[len(line) :]
        ordered += sorted(line, key=lambda box: float(box[:, 0].min()))
    return ordered
