"""com.microsoft's Tokenizer: texts cut to pieces, as exported vectorisers of text begin with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.site import Site
from tuili.ops.strings import expression, text_array
from tuili.tensors import Array

_START, _END = "\x02", "\x03"
# What may let the first way to match be shorter than another one.
_CHOICES = re.compile(r"[|?]")


def _shape(site: Site) -> list[Result]:
    try:
        _cutter(*map(site.attr, ("mincharnum", "separators", "tokenexp")))
    except ValueError as error:
        site.fail(str(error))
    shape = site.need_rank(0, 1, 2)
    return [(*shape, site.fresh(len(shape)))]


def _tokenizer(
    X: Array,
    *,
    mark: int,
    pad_value: str,
    mincharnum: int,
    separators: Sequence[str] | None,
    tokenexp: str | None,
) -> Array:
    """The pieces of every text, filled up to the longest row; nothing at all for empty texts."""
    cut = _cutter(mincharnum, separators, tokenexp)
    texts: list[str] = X.ravel().tolist()
    rows = [cut(text) for text in texts]
    if mark and any(texts):
        rows = [[_START, *row, _END] for row in rows]
    width = max(map(len, rows), default=0)
    flat = [word for row in rows for word in row + [pad_value] * (width - len(row))]
    return text_array(flat, (*X.shape, width))


def _cutter(
    least: int, separators: Sequence[str] | None, tokens: str | None
) -> Callable[[str], list[str]]:
    """Separators go before an expression of what tokens are; an empty one parts all characters."""
    if separators and list(separators) == [""]:
        if least > 1:
            raise ValueError("mincharnum is over 1 where the only separator is empty")
        return list
    if separators:
        if "" in separators:
            raise ValueError("a separator is empty; only a lone one may be")
        patterns = [expression(each, re.ASCII) for each in separators]
        return lambda text: _between(text, patterns, least)
    if not tokens:
        raise ValueError("neither separators nor tokenexp say what the tokens are")
    pattern = expression(tokens, re.ASCII)
    find = _longest if _CHOICES.search(tokens) else _first
    return lambda text: [word for word in find(pattern, text) if len(word) >= max(least, 1)]


def _between(text: str, patterns: Sequence[re.Pattern[str]], least: int) -> list[str]:
    """What the separators leave, cut by one after the other; short pieces go at each of them."""
    pieces = [text]
    for pattern in patterns:
        parts = (part for piece in pieces for part in _parted(pattern, piece))
        pieces = [part for part in parts if len(part) >= max(least, 1)]
    return pieces


def _parted(pattern: re.Pattern[str], text: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for found in pattern.finditer(text):
        if found.end() > found.start():
            pieces.append(text[start : found.start()])
            start = found.end()
    return [*pieces, text[start:]]


def _first(pattern: re.Pattern[str], text: str) -> list[str]:
    return [found.group() for found in pattern.finditer(text)]


def _longest(pattern: re.Pattern[str], text: str) -> list[str]:
    """The longest of the leftmost matches, as RE2 in onnxruntime is told to take."""
    words: list[str] = []
    start = 0
    while found := pattern.search(text, start):
        begin, end = found.span()
        longer = (pattern.fullmatch(text, begin, to) for to in range(len(text), end, -1))
        end = next((match.end() for match in longer if match), end)
        words.append(text[begin:end])
        start = max(end, begin + 1)
    return words


ROWS = (
    op(
        "com.microsoft::Tokenizer",
        "X",
        "Y",
        _shape,
        _tokenizer,
        allow="text",
        attrs={
            "mark": REQUIRED,
            "pad_value": REQUIRED,
            "mincharnum": REQUIRED,
            "separators": None,
            "tokenexp": None,
        },
    ),
)
