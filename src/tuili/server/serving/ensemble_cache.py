"""EnsembleCache: whole answers of an ensemble, by content, as those of a model are kept.

An answer is of the versions that made it: once another one takes the place of any, it is never
given again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tuili.server.protocol.messages import Array, InferRequest, sequence_of
from tuili.server.scheduling.cache import Outputs, ResponseCache, key_of, told_of

# Tells what answers for the models below an ensemble from all that did or will do so; None: one
# version or another may.
Standing = tuple[object, ...] | None


class EnsembleCache:
    """The answers of one version of an ensemble."""

    def __init__(
        self, cache: ResponseCache, outputs: tuple[str, ...], standing: Callable[[], Standing]
    ) -> None:
        self._cache = cache
        self._outputs = outputs
        self._standing = standing
        self._last: Standing = None
        self._owner = 0

    def key(self, request: InferRequest, arrays: Mapping[str, Array]) -> bytes:
        """By what an answer is kept; b"" where none is.

        A step of a pipeline around it is left to the caches of its own steps: it keeps to the
        versions that the pipeline has met.
        """
        if request.uncached or request.kept is not None or sequence_of(request):
            return b""
        standing = self._standing()
        if standing is None:
            return b""
        if standing != self._last:
            self._last, self._owner = standing, self._cache.new_owner()
        return key_of(self._owner, arrays, told_of(request, self._outputs))

    def get(self, key: bytes) -> Outputs | None:
        """The outputs that are kept by a key."""
        return self._cache.get(key, time.monotonic())

    def put(self, key: bytes, outputs: Mapping[str, Array]) -> None:
        """Keep the outputs of an answer."""
        self._cache.put(key, outputs, time.monotonic())
