"""What goes into a network: arrays of two sizes for every kind of input, their axes named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
Axes = Mapping[str, tuple[str, ...]]  # of each input, the names of its axes; "" has a fixed size
Sizes = Mapping[str, int]
WORDS = 300

# By name of the axis: the traced size, and another.
TOKENS = ({"batch": 2, "tokens": 11, "targets": 7}, {"batch": 3, "tokens": 17, "targets": 5})


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape).astype(np.float32)


def _words(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    """No special ones: some networks look for the end of a text."""
    return rng.integers(3, WORDS, shape)


def _mask(batch: int, tokens: int) -> np.ndarray[Any, Any]:
    """The first row is full, every other one lacks as many words as its number."""
    return (np.arange(tokens) < tokens - np.arange(batch)[:, None]).astype(np.int64)


def _picture(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    return {
        "pixel_values": _normal(rng, at["batch"], 3, at.get("height", size), at.get("width", size))
    }


def _text(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    shape = at["batch"], at["tokens"]
    return {"input_ids": _words(rng, *shape), "attention_mask": _mask(*shape)}


def _text_text(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    words = _words(rng, at["batch"], at["targets"])
    return {**_text(rng, at, size), "decoder_input_ids": words}


def _regions(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    batch = at["batch"]
    boxes = rng.random((batch, 5, 4)).astype(np.float32)
    return {**_text(rng, at, size), "visual_feats": _normal(rng, batch, 5, 32), "visual_pos": boxes}


def _boxes(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    corners = np.sort(rng.integers(0, 60, (at["batch"], at["tokens"], 2, 2)), axis=2)
    return {**_text(rng, at, size), "bbox": corners.reshape(at["batch"], at["tokens"], 4)}


def _decision(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    batch, steps = at["batch"], at["tokens"]
    return {
        "states": _normal(rng, batch, steps, 17), "actions": _normal(rng, batch, steps, 4),
        "returns_to_go": _normal(rng, batch, steps, 1),
        "timesteps": np.tile(np.arange(steps), (batch, 1)),
        "attention_mask": _mask(batch, steps),
    }  # fmt: skip


def _of(name: str, *shape: str | int) -> Callable[[np.random.Generator, Sizes, int], Arrays]:
    """Normal numbers; words in the shape are axes."""

    def made(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
        return {name: _normal(rng, *(dim if isinstance(dim, int) else at[dim] for dim in shape))}

    return made


def _with_targets(kind: str) -> Callable[[np.random.Generator, Sizes, int], Arrays]:
    def made(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
        words = _words(rng, at["batch"], at["targets"])
        return {**KINDS[kind][0](rng, at, size), "decoder_input_ids": words}

    return made


def _picture_text(rng: np.random.Generator, at: Sizes, size: int) -> Arrays:
    return {**_text(rng, at, size), **_picture(rng, at, size)}


_TEXT = {"input_ids": ("batch", "tokens"), "attention_mask": ("batch", "tokens")}
_PICTURE = {"pixel_values": ("batch", "", "height", "width")}
_TARGETS = {"decoder_input_ids": ("batch", "targets")}
_SOUND = {"frames": 1600}, {"frames": 2000}
_MEL = {"frames": 40}, {"frames": 56}

# kind: (arrays, axes, sizes of some axes beside those of TOKENS)
KINDS: dict[str, tuple[Callable[[np.random.Generator, Sizes, int], Arrays], Axes, Any]] = {
    "picture": (_picture, _PICTURE, ({}, {"height": 96, "width": 64})),
    "square": (_picture, _PICTURE, ({}, {})),
    "text": (_text, _TEXT, ({}, {})),
    "ids": (
        lambda rng, at, size: {"input_ids": _words(rng, at["batch"], at["tokens"])},
        {"input_ids": _TEXT["input_ids"]},
        ({}, {}),
    ),
    "text_text": (_text_text, {**_TEXT, **_TARGETS}, ({}, {})),
    "picture_text": (_picture_text, {**_TEXT, **_PICTURE}, ({}, {"batch": 2})),
    "regions": (
        _regions,
        {**_TEXT, "visual_feats": ("batch", "", ""), "visual_pos": ("batch", "", "")},
        ({}, {}),
    ),
    "boxes": (_boxes, {**_TEXT, "bbox": ("batch", "tokens", "")}, ({}, {})),
    "decision": (
        _decision,
        {
            **dict.fromkeys(("states", "actions", "returns_to_go"), ("batch", "tokens", "")),
            **dict.fromkeys(("timesteps", "attention_mask"), ("batch", "tokens")),
        },
        ({}, {}),
    ),
    "wave": (_of("input_values", "batch", "frames"), {"input_values": ("batch", "frames")}, _SOUND),
    "sound": (
        _of("input_values", "batch", 1, "frames"),
        {"input_values": ("batch", "", "frames")},
        ({"frames": 1280}, {"frames": 1920}),
    ),
    "codes": (
        _of("codes", "batch", 32, "frames"),
        {"codes": ("batch", "", "frames")},
        ({"frames": 9}, {"frames": 14}),
    ),
    "spectrogram": (
        _of("input_values", "batch", 64, 16),
        {"input_values": ("batch", "", "")},
        ({}, {}),
    ),
    "vocoder": (
        _of("spectrogram", "batch", "frames", 16),
        {"spectrogram": ("batch", "frames", "")},
        ({"frames": 9}, {"frames": 14}),
    ),
    "univnet": (
        _of("input_features", "batch", "frames", 16),
        {"input_features": ("batch", "frames", "")},
        ({"frames": 9}, {"frames": 9}),
    ),
    "mel": (
        _of("input_features", "batch", 16, 64),
        {"input_features": ("batch", "", "")},
        ({}, {}),
    ),
    "mel_text": (_with_targets("mel"), {"input_features": ("batch", "", ""), **_TARGETS}, ({}, {})),
    "features": (
        _of("input_features", "batch", "frames", 16),
        {"input_features": ("batch", "frames", "")},
        _MEL,
    ),
    "features_text": (
        _with_targets("features"),
        {"input_features": ("batch", "frames", ""), **_TARGETS},
        _MEL,
    ),
    "video": (
        _of("pixel_values", "batch", 2, 3, 64, 64),
        {"pixel_values": ("batch", "", "", "", "")},
        ({}, {}),
    ),
    "series": (_of("past_values", "batch", 32, 3), {"past_values": ("batch", "", "")}, ({}, {})),
}


def arrays_of(kind: str, which: int, size: int, open_dims: tuple[str, ...]) -> Arrays:
    """The inputs of size 0 (traced) or 1 (another in the open dims)."""
    make, _, own = KINDS[kind]
    first, second = ({**TOKENS[at], **own[at]} for at in (0, 1))
    at = first if which == 0 else {**first, **{k: second[k] for k in second if k in open_dims}}
    return make(np.random.default_rng(7 + which), at, size)


def axes_of(kind: str, open_dims: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """The open axes of every input, by number."""
    return {
        name: {axis: dim for axis, dim in enumerate(dims) if dim in open_dims}
        for name, dims in KINDS[kind][1].items()
    }
