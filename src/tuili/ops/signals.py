"""Signal processing: DFT, STFT, windows, mel weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.op import Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType, floor_div


def _complex(x: Array) -> Array:
    """[..., 1] is real, [..., 2] holds real and imaginary parts."""
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
    kind = np.result_type(wide.dtype, np.complex64)
    if x.shape[-1] == 1:
        return wide[..., 0].astype(kind)
    return np.ascontiguousarray(wide).view(kind)[..., 0]


def _pairs(x: Array) -> Array:
    return np.stack([np.real(x), np.imag(x)], -1)


def _dft_shape(site: Site) -> list[Result]:
    shape: list[Dim] = list(site.shape(0))
    axis = site.number(2) if site.has(2) else -2
    if axis is None:
        return [site.open(len(shape))]
    axis = site.axis(axis, len(shape))
    if site.has(1):
        length = site.dims(1)
        shape[axis] = site.fresh(axis) if length is None else length[0]
    one_sided, inverse = site.attr("onesided"), site.attr("inverse")
    shape[-1] = 2
    if one_sided and inverse:
        shape[-1] = 1
        if not site.has(1):
            shape[axis] = (shape[axis] - 1) * 2
    elif one_sided:
        shape[axis] = floor_div(shape[axis], 2) + 1
    return [shape]


def _dft(
    x: Array,
    dft_length: Array | None = None,
    axis: Array | None = None,
    *,
    inverse: int,
    onesided: int,
) -> Array:
    along = (-2 if axis is None else int(np.ravel(axis)[0])) % x.ndim
    length = None if dft_length is None else int(np.ravel(dft_length)[0])
    values = _complex(x)
    if onesided and inverse:
        return np.fft.irfft(values, length, along)[..., None]
    if onesided:
        return _pairs(np.fft.rfft(np.real(values), length, along))
    return _pairs((np.fft.ifft if inverse else np.fft.fft)(values, length, along))


def _stft_shape(site: Site) -> list[Result]:
    batch, total, *_ = site.need_rank(0, 2, 3)
    step, length = site.contents.bind(site.value(1)), None
    if site.has(3):
        length = site.dims(3)
    elif site.has(2):
        length = (site.shape(2)[0],)
    if step is None or length is None:
        return [(batch, site.fresh(1), site.fresh(2), 2)]
    if site.has(2):
        site.same(site.shape(2)[0], length[0], "a window as long as a frame")
    site.at_least(total, length[0], "a signal as long as a frame")
    frames = floor_div(total - length[0], step[0]) + 1
    bins = floor_div(length[0], 2) + 1 if site.attr("onesided") else length[0]
    return [(batch, frames, bins, 2)]


def _stft(
    signal: Array,
    frame_step: Array,
    window: Array | None = None,
    frame_length: Array | None = None,
    *,
    onesided: int,
) -> Array:
    values = _complex(signal if signal.ndim == 3 else signal[..., None])
    if frame_length is not None:
        length = int(np.ravel(frame_length)[0])
    else:
        length = values.shape[1] if window is None else window.shape[0]
    frames = np.lib.stride_tricks.sliding_window_view(values, length, 1)
    frames = frames[:, :: int(np.ravel(frame_step)[0])]
    if window is not None:
        frames = frames * window
    if onesided:
        return _pairs(np.fft.rfft(np.real(frames)))
    return _pairs(np.fft.fft(frames))


# -- windows -------------------------------------------------------------------------------


def _window(name: str, coefficients: Sequence[float]) -> Op:
    """A sum of cosines with alternating signs."""

    def meaning(size: Array, output_datatype: DType, periodic: int) -> Array:
        count = int(size)
        period = count if periodic else max(count - 1, 1)
        angles = 2 * np.pi * np.arange(count) / period
        total = sum((-1) ** k * a * np.cos(k * angles) for k, a in enumerate(coefficients))
        return np.asarray(total).astype(output_datatype.numpy)

    return op(
        name,
        "size:I",
        "output:@output_datatype",
        _window_shape,
        meaning,
        allow={"I": "index"},
        attrs={"output_datatype": DType.F32, "periodic": 1},
    )


def _window_shape(site: Site) -> list[Result]:
    size = site.dims(0)
    return [(site.fresh(0) if size is None else size[0],)]


def _mel_shape(site: Site) -> list[Result]:
    bins, length = site.dims(0), site.dims(1)
    rows = site.fresh(0) if length is None else floor_div(length[0], 2) + 1
    return [(rows, site.fresh(1) if bins is None else bins[0])]


def _mel_weights(
    num_mel_bins: Array,
    dft_length: Array,
    sample_rate: Array,
    lower: Array,
    upper: Array,
    *,
    output_datatype: DType,
) -> Array:
    count, length = int(num_mel_bins), int(dft_length)
    low, high = (2595 * np.log10(1 + float(edge) / 700) for edge in (lower, upper))
    mels = low + np.arange(count + 2) * (high - low) / (count + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    points = np.floor((length + 1) * hertz / int(sample_rate)).astype(int)
    result = np.zeros((length // 2 + 1, count))
    for column in range(count):
        left, centre, right = points[column : column + 3]
        if centre == left:
            result[centre, column] = 1
        else:
            rising = np.arange(left, centre + 1)
            result[rising, column] = (rising - left) / (centre - left)
        if right > centre:
            falling = np.arange(centre, right)
            result[falling, column] = (right - falling) / (right - centre)
    return result.astype(output_datatype.numpy)


_I: dict[str, Any] = {"T": "float", "I": "index"}

ROWS = (
    op(
        "DFT",
        "input dft_length?:I axis?:i64",
        "output",
        _dft_shape,
        _dft,
        allow=_I,
        attrs={"inverse": 0, "onesided": 0},
    ),
    op(
        "STFT",
        "signal frame_step:I window? frame_length?:I",
        "output",
        _stft_shape,
        _stft,
        allow=_I,
        attrs={"onesided": 1},
    ),
    _window("HannWindow", (0.5, 0.5)),
    _window("HammingWindow", (25 / 46, 1 - 25 / 46)),
    _window("BlackmanWindow", (0.42, 0.5, 0.08)),
    op(
        "MelWeightMatrix",
        "num_mel_bins:I dft_length:I sample_rate:I lower_edge_hertz:F upper_edge_hertz:F",
        "output:@output_datatype",
        _mel_shape,
        _mel_weights,
        allow={"I": "index", "F": "float"},
        attrs={"output_datatype": DType.F32},
    ),
)
