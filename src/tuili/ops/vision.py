"""Operators on images: GridSample, AffineGrid, RoiAlign, Upsample, ImageDecoder."""

from __future__ import annotations

from io import BytesIO
from itertools import product
from typing import Any

import numpy as np

from tuili.errors import Unsupported
from tuili.ops.op import Result, op
from tuili.ops.resize import resize
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, floor_div

# -- GridSample ----------------------------------------------------------------------------


def _grid_shape(site: Site) -> list[Result]:
    x, grid = site.shape(0), site.shape(1)
    site.same(len(x), len(grid), "ranks of the input and the grid")
    site.same(grid[0], x[0], "the batch of the grid")
    site.same(grid[-1], len(x) - 2, "coordinates of a place")
    return [(*x[:2], *grid[1:-1])]


def _reflect(places: Array, low: float, high: float) -> Array:
    span = high - low
    if span <= 0:
        return np.zeros_like(places)
    folded = np.mod(places - low, 2 * span)
    return low + np.where(folded > span, 2 * span - folded, folded)


def _cubic_weights(t: Array, a: float = -0.75) -> list[Array]:
    def near(d: Array) -> Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


_CUBIC = ("cubic", "bicubic")


def _axis_taps(places: Array, mode: str) -> list[tuple[Array, Array]]:
    """(indices, weights) along one axis."""
    if mode == "nearest":
        return [(np.rint(places).astype(int), np.ones_like(places))]
    base = np.floor(places).astype(int)
    t = places - base
    if mode in _CUBIC:
        return [(base + k - 1, weight) for k, weight in enumerate(_cubic_weights(t))]
    return [(base, 1 - t), (base + 1, t)]


def _grid_sample(
    X: Array, grid: Array, *, align_corners: int, mode: str, padding_mode: str
) -> Array:
    sizes = X.shape[2:]
    wide = X.astype(np.float64) if X.dtype.kind != "O" else X
    axes: list[list[tuple[Array, Array]]] = []
    for axis, size in enumerate(sizes):
        # The grid names x first, the last spatial axis.
        g = grid[..., len(sizes) - 1 - axis].astype(np.float64)
        g = np.where(np.isnan(g), -1, g)  # as PyTorch documents, and as onnxruntime does
        places = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        if padding_mode == "border" and mode not in _CUBIC:
            # As in PyTorch: between four elements, each of them is taken from inside instead.
            places = np.clip(places, 0, size - 1)
        elif padding_mode == "reflection":
            edges = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
            places = _reflect(places, *edges)
        axes.append(_axis_taps(places, mode))
    total: Any = 0
    rows = np.arange(X.shape[0]).reshape(-1, *[1] * len(sizes))
    for taps in product(*axes):
        weight: Any = 1
        inside: Any = True
        indices: list[Array] = []
        for (index, part), size in zip(taps, sizes, strict=True):
            weight = weight * part
            reached, valid = _settled(index, size, padding_mode, align_corners)
            inside = inside & valid
            indices.append(reached)
        picked = np.moveaxis(wide, 1, -1)[(rows, *indices)]
        total = total + np.where((inside * weight)[..., None] != 0, picked, 0) * weight[..., None]
    return np.moveaxis(total, -1, 1).astype(X.dtype)


def _settled(index: Array, size: int, padding_mode: str, align_corners: int) -> tuple[Array, Array]:
    """Indices inside the image, and which of them count."""
    if padding_mode == "zeros":
        return np.clip(index, 0, size - 1), (index >= 0) & (index < size)
    if padding_mode == "reflection":
        edges = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        index = np.rint(_reflect(index.astype(np.float64), *edges)).astype(int)
    return np.clip(index, 0, size - 1), np.ones(index.shape, bool)


# -- AffineGrid ----------------------------------------------------------------------------


def _affine_shape(site: Site) -> list[Result]:
    theta, count = site.need_rank(0, 3), site.shape(1)[0]
    sizes = site.dims(1)
    if sizes is not None:
        rank = len(sizes) - 2
        site.same_shape(theta, (sizes[0], rank, rank + 1), "matrices for the size")
    if sizes is None:
        return [site.open(count) if isinstance(count, int) else None]
    return [(sizes[0], *sizes[2:], len(sizes) - 2)]


def _affine_grid(theta: Array, size: Array, align_corners: int) -> Array:
    spatial = [int(dim) for dim in size[2:]]
    lines: list[Array] = []
    for dim in spatial:
        if align_corners:
            # A lone element lies in the middle, as in PyTorch.
            lines.append(np.linspace(-1, 1, dim) if dim > 1 else np.zeros(1))
        else:
            lines.append((2 * np.arange(dim) + 1) / dim - 1)
    mesh = np.meshgrid(*lines, indexing="ij")[::-1]
    points = np.stack([*mesh, np.ones(spatial)], -1).astype(theta.dtype)
    flat = points.reshape(-1, points.shape[-1])
    return (flat @ theta.swapaxes(1, 2)).reshape(theta.shape[0], *spatial, len(spatial))


# -- RoiAlign ------------------------------------------------------------------------------


def _roi_shape(site: Site) -> list[Result]:
    x, rois = site.need_rank(0, 4), site.need_rank(1, 2)
    site.same(rois[1], 4, "the corners of a region")
    site.same_shape(site.shape(2), rois[:1], "a picture for each region")
    return [(rois[0], x[1], site.attr("output_height"), site.attr("output_width"))]


def _roi_samples(start: float, size: float, bins: int, ratio: int, limit: int) -> Array:
    """Positions [bins, samples] along one axis."""
    count = ratio or int(np.ceil(size / bins))
    step = size / bins
    offsets = (np.arange(count) + 0.5) * step / count
    return start + np.arange(bins)[:, None] * step + offsets


def _picture(index: Array, count: int) -> int:
    if not 0 <= index < count:
        raise IndexError(f"a region of picture {index}; there are {count}")
    return int(index)


def _edge_taps(places: Array, limit: int) -> list[tuple[Array, Array]]:
    valid = (places >= -1) & (places <= limit)
    inside = np.clip(places, 0, limit - 1)
    low = np.floor(inside).astype(int)
    high = np.minimum(low + 1, limit - 1)
    t = inside - low
    return [(low, (1 - t) * valid), (high, t * valid)]


def _roi_align(
    X: Array,
    rois: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str,
    mode: str,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scale: float,
) -> Array:
    half = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    result = np.zeros((len(rois), X.shape[1], output_height, output_width), np.float64)
    for index, (roi, batch) in enumerate(zip(rois, batch_indices, strict=True)):
        x1, y1, x2, y2 = roi.astype(np.float64) * spatial_scale - half
        width, height = x2 - x1, y2 - y1
        if not half:
            width, height = max(width, 1.0), max(height, 1.0)
        rows = _roi_samples(y1, height, output_height, sampling_ratio, X.shape[2])
        columns = _roi_samples(x1, width, output_width, sampling_ratio, X.shape[3])
        if not rows.size or not columns.size:
            continue
        corners: list[Array] = []
        down, across = _edge_taps(rows, X.shape[2]), _edge_taps(columns, X.shape[3])
        for (i, wi), (j, wj) in product(down, across):
            picked = X[_picture(batch, len(X))][:, i[:, None, :, None], j[None, :, None, :]]
            corners.append(picked * (wi[:, None, :, None] * wj[None, :, None, :]))
        if mode == "max":
            result[index] = np.max(corners, 0).max((-1, -2))
        else:
            result[index] = np.sum(corners, 0).mean((-1, -2))
    return result


# -- Upsample, ImageDecoder ----------------------------------------------------------------


def _upsample_shape(site: Site) -> list[Result]:
    scales = site.array(1)
    if scales is None:
        return [site.open(site.rank(0))]
    pairs = zip(site.shape(0), scales, strict=True)
    shape: list[Dim] = []
    for dim, scale in pairs:
        top, bottom = float(scale).as_integer_ratio()
        shape.append(floor_div(dim * top, bottom))
    return [shape]


def _upsample(X: Array, scales: Array, mode: str) -> Array:
    return resize(
        X,
        None,
        scales,
        antialias=0,
        axes=None,
        coordinate_transformation_mode="asymmetric",
        cubic_coeff_a=-0.75,
        exclude_outside=0,
        extrapolation_value=0.0,
        keep_aspect_ratio_policy="stretch",
        mode=mode,
        nearest_mode="floor",
    )


def _decode_image(stream: Array, pixel_format: str) -> Array:
    try:
        from PIL import Image
    except ImportError as error:
        message = "ImageDecoder needs Pillow; install it with `pip install pillow`"
        raise Unsupported(message) from error
    with Image.open(BytesIO(stream.tobytes())) as image:
        pixels = np.array(image.convert("L" if pixel_format == "Grayscale" else "RGB"))
    if pixel_format == "BGR":
        return pixels[..., ::-1]
    return pixels[..., None] if pixel_format == "Grayscale" else pixels


def _decoded_shape(site: Site) -> list[Result]:
    channels = 1 if site.attr("pixel_format") == "Grayscale" else 3
    return [(site.fresh(0), site.fresh(1), channels)]


ROWS = (
    op(
        "GridSample",
        "X grid:U",
        "Y",
        _grid_shape,
        _grid_sample,
        attrs={"align_corners": 0, "mode": "linear", "padding_mode": "zeros"},
    ),
    op(
        "AffineGrid",
        "theta size:i64",
        "grid",
        _affine_shape,
        _affine_grid,
        allow="float",
        attrs={"align_corners": 0},
    ),
    op(
        "RoiAlign",
        "X rois batch_indices:i64",
        "Y",
        _roi_shape,
        _roi_align,
        allow="float",
        attrs={
            "coordinate_transformation_mode": "half_pixel",
            "mode": "avg",
            "output_height": 1,
            "output_width": 1,
            "sampling_ratio": 0,
            "spatial_scale": 1.0,
        },
    ),
    op("Upsample", "X scales:f32", "Y", _upsample_shape, _upsample, attrs={"mode": "nearest"}),
    op(
        "ImageDecoder",
        "encoded_stream:u8",
        "image:u8",
        _decoded_shape,
        _decode_image,
        attrs={"pixel_format": "RGB"},
    ),
)
