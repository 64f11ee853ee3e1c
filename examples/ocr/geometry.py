"""Plane geometry for text boxes: hulls, tight rectangles, straightened crops."""

from __future__ import annotations

import numpy as np
from PIL import Image

Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def convex_hull(points: Points) -> Points:
    """The corners of the smallest convex polygon around `points` (Andrew's monotone chain)."""
    ordered = np.unique(points, axis=0)
    if len(ordered) < 3:
        return ordered

    def chain(sequence: Points) -> list[np.ndarray]:
        corners: list[np.ndarray] = []
        for point in sequence:
            while len(corners) > 1 and _turn(corners[-2], corners[-1], point) <= 0:
                corners.pop()
            corners.append(point)
        return corners[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def tight_rectangle(points: Points) -> Points:
    """The corners of the rectangle of least area around `points`, at any angle.

    One of its sides lies on a side of the hull, so trying those is enough. The corners run
    clockwise on the screen from the top left of the text as it is read.
    """
    hull = convex_hull(points)
    sides = np.diff(np.vstack([hull, hull[:1]]), axis=0)
    angles = np.unique(np.arctan2(sides[:, 1], sides[:, 0]) % (np.pi / 2))
    best = min((_box_at(hull, angle) for angle in angles), key=lambda box: box[0])
    return _from_top_left(best[1])


def _box_at(hull: Points, angle: float) -> tuple[float, Points]:
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    flat = hull @ turn
    (left, top), (right, bottom) = flat.min(axis=0), flat.max(axis=0)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return float((right - left) * (bottom - top)), corners @ turn.T


def _from_top_left(corners: Points) -> Points:
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    left = left[np.argsort(left[:, 1])]
    right = right[np.argsort(right[:, 1])]
    return np.array([left[0], right[0], right[1], left[1]])


def grown(rectangle: Points, distance: float) -> Points:
    """The rectangle with each side moved outwards by `distance`."""
    across = rectangle[1] - rectangle[0]
    down = rectangle[3] - rectangle[0]
    across = distance * across / max(float(np.linalg.norm(across)), 1e-9)
    down = distance * down / max(float(np.linalg.norm(down)), 1e-9)
    return rectangle + np.array([-across - down, across - down, across + down, -across + down])


def side_lengths(rectangle: Points) -> tuple[float, float]:
    """Width and height of a rectangle given by its corners."""
    return (
        float(np.linalg.norm(rectangle[1] - rectangle[0])),
        float(np.linalg.norm(rectangle[3] - rectangle[0])),
    )


def straightened(picture: Image.Image, rectangle: Points) -> Image.Image:
    """The part of the picture inside the rectangle, upright; tall strips are laid on their side."""
    width, height = (max(1, round(length)) for length in side_lengths(rectangle))
    top_left, top_right, bottom_right, bottom_left = (tuple(corner) for corner in rectangle)
    quad = (*top_left, *bottom_left, *bottom_right, *top_right)
    crop = picture.transform(
        (width, height), Image.Transform.QUAD, quad, resample=Image.Resampling.BICUBIC
    )
    return crop.rotate(90, expand=True) if height >= 1.5 * width else crop
