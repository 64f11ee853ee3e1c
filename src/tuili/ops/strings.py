"""Operators on text: concatenate, split, normalise, match, and count n-grams."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.shapes import broadcast, same
from tuili.ops.site import Site
from tuili.tensors import Array


def text_array(items: Sequence[str], shape: Sequence[int]) -> Array:
    """An object array of str."""
    array = np.empty(len(items), object)
    array[:] = list(items)
    return array.reshape(tuple(shape))


def _concat(X: Array, Y: Array) -> Array:
    return np.asarray(np.frompyfunc(lambda a, b: a + b, 2, 1)(X, Y), object)


def _split_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    return [(*shape, site.fresh(len(shape))), shape]


def _split(X: Array, delimiter: str | None, maxsplit: int | None) -> tuple[Array, Array]:
    most = -1 if maxsplit is None else maxsplit
    rows = [item.split(delimiter or None, most) for item in X.ravel()]
    width = max(map(len, rows), default=0)
    flat = [word for row in rows for word in row + [""] * (width - len(row))]
    counts = np.array([len(row) for row in rows], np.int64).reshape(X.shape)
    return text_array(flat, (*X.shape, width)), counts


def expression(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """A regular expression; ValueError for one that cannot be read."""
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueError(f"the regular expression {pattern!r} cannot be read: {error}") from error


def _match(X: Array, pattern: str) -> Array:
    compiled = expression(pattern)
    found = [compiled.fullmatch(item) is not None for item in X.ravel()]
    return np.array(found, bool).reshape(X.shape)


def _normalizer_shape(site: Site) -> list[Result]:
    shape = site.need_rank(0, 1, 2)
    return [(*shape[:-1], site.fresh(len(shape) - 1)) if site.attr("stopwords") else shape]


_CASES: dict[str, Any] = {"LOWER": str.lower, "UPPER": str.upper, "NONE": str}


def _normalize(
    X: Array,
    *,
    case_change_action: str,
    is_case_sensitive: int,
    locale: str | None,
    stopwords: Sequence[str] | None,
) -> Array:
    key = str if is_case_sensitive else str.lower
    stops = {key(word) for word in stopwords or ()}
    kept = [word for word in X.ravel() if key(word) not in stops]
    # A result without words is one empty word (StringNormalizer-10).
    words = [_CASES[case_change_action](word) for word in kept] or [""]
    return text_array(words, (len(words),) if X.ndim == 1 else (1, len(words)))


def _tfidf_shape(site: Site) -> list[Result]:
    shape = site.need_rank(0, 1, 2)
    return [(*shape[:-1], max(site.attr("ngram_indexes")) + 1)]


@lru_cache(maxsize=16)
def _places(pool: tuple[Any, ...], counts: tuple[int, ...]) -> dict[tuple[Any, ...], int]:
    """The number of every n-gram; a vocabulary has thousands of them, and is the same each time."""
    places: dict[tuple[Any, ...], int] = {}
    for length, (start, end) in enumerate(pairwise((*counts, len(pool))), 1):
        for first in range(start, end, length):
            places[pool[first : first + length]] = len(places)
    return places


def _tfidf(X: Array, **attrs: Any) -> Array:
    pool = attrs["pool_strings"] or attrs["pool_int64s"]
    places = _places(tuple(pool), tuple(attrs["ngram_counts"]))
    indexes, weights = attrs["ngram_indexes"], attrs["weights"]
    result = np.zeros((*X.shape[:-1], max(indexes) + 1), np.float32)
    rows, targets = X.reshape(-1, X.shape[-1]), result.reshape(-1, result.shape[-1])
    for row, target in zip(rows, targets, strict=True):
        for gram, count in _grams(row.tolist(), places, attrs).items():
            weight = weights[places[gram]] if weights else 1.0
            target[indexes[places[gram]]] = {
                "TF": count,
                "IDF": weight,
                "TFIDF": count * weight,
            }[attrs["mode"]]
    return result


def _grams(words: list[Any], known: dict[tuple[Any, ...], int], attrs: dict[str, Any]) -> Any:
    found: Counter[tuple[Any, ...]] = Counter()
    for length in range(attrs["min_gram_length"], attrs["max_gram_length"] + 1):
        # Single words have no gaps: skipping would count each of them again.
        for skip in range(1 if length == 1 else attrs["max_skip_count"] + 1):
            reach = (length - 1) * (skip + 1) + 1
            for first in range(len(words) - reach + 1):
                gram = tuple(words[first : first + reach : skip + 1])
                if gram in known:
                    found[gram] += 1
    return found


ROWS = (
    op("StringConcat", "X Y", "Z", broadcast, _concat, allow="text"),
    op(
        "StringSplit",
        "X",
        "Y Z:i64",
        _split_shape,
        _split,
        allow="text",
        attrs={"delimiter": None, "maxsplit": None},
    ),
    op("RegexFullMatch", "X", "Y:bool", same, _match, allow="text", attrs={"pattern": REQUIRED}),
    op(
        "StringNormalizer",
        "X",
        "Y",
        _normalizer_shape,
        _normalize,
        allow="text",
        attrs={
            "case_change_action": "NONE",
            "is_case_sensitive": 0,
            "locale": None,
            "stopwords": None,
        },
    ),
    op(
        "TfIdfVectorizer",
        "X",
        "Y:f32",
        _tfidf_shape,
        _tfidf,
        attrs={
            "max_gram_length": REQUIRED,
            "max_skip_count": REQUIRED,
            "min_gram_length": REQUIRED,
            "mode": REQUIRED,
            "ngram_counts": REQUIRED,
            "ngram_indexes": REQUIRED,
            "pool_int64s": None,
            "pool_strings": None,
            "weights": None,
        },
    ),
)
