"""SharedCache: answers that several servers share in Redis, behind each server's own memory.

Theory of operation
- Keys start with the digest of the model version's files and configuration, so that a version that
  was swapped for other content never finds the old one's answers, on any server.
- Redis is asked only after the server's own cache missed, and is waited for at most `timeout_s`.
  After a failure it is left alone for a while: a dead cache costs nothing but its hits.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from tuili.errors import InvalidArgument, Unsupported
from tuili.server.protocol.messages import Array

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = logging.getLogger("tuili.server")

Outputs = Mapping[str, Array]
_PAUSE_S: Final = 5.0
_MOST_BYTES: Final = 64 << 20
_PREFIX: Final = b"tuili:answer:"


class _Tensor(msgspec.Struct, array_like=True):
    """An output as it is stored: text elements apart, numbers as their bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    texts: list[bytes] | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[str, _Tensor]).decode


class SharedAnswers(NamedTuple):
    """The part of a shared cache that belongs to one model version, told by its content."""

    cache: SharedCache
    content: bytes


class SharedCache:
    """Answers in one Redis; all methods run on the event loop."""

    def __init__(self, url: str, ttl_s: float = 0.0, timeout_s: float = 0.05) -> None:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise InvalidArgument(f"response cache {url!r} is no redis:// URL")
        try:
            import redis.asyncio
        except ImportError as error:
            raise Unsupported(f"{error}; it needs `pip install 'tuili[queues]'`") from error
        self._redis: Redis = redis.asyncio.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._ttl_ms = int(ttl_s * 1000) or None
        self._timeout_s = timeout_s
        self._resting_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def look_up(self, key: bytes, found: Callable[[Outputs | None], None]) -> None:
        """Call `found` with the outputs of a key, or with None; at once while Redis is down."""
        if time.monotonic() < self._resting_until:
            found(None)
            return
        self._start(self._look_up(key, found))

    def keep(self, key: bytes, outputs: Outputs) -> None:
        """Store outputs, in the background."""
        if time.monotonic() < self._resting_until:
            return
        value = packed(outputs)
        if len(value) <= _MOST_BYTES:
            self._start(self._keep(key, value))

    async def settle(self) -> None:
        """Wait for what is under way: no longer than a look-up may take."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        await self.settle()
        await self._redis.aclose()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_up(self, key: bytes, found: Callable[[Outputs | None], None]) -> None:
        outputs: Outputs | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await self._redis.get(_PREFIX + key)
            if isinstance(value, bytes):
                outputs = unpacked(value)
        except Exception as error:  # noqa: BLE001 - whatever a cache does, the model can answer
            self._rest(error)
        found(outputs)

    async def _keep(self, key: bytes, value: bytes) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._redis.set(_PREFIX + key, value, px=self._ttl_ms)
        except Exception as error:  # noqa: BLE001 - as above
            self._rest(error)

    def _rest(self, error: Exception) -> None:
        if time.monotonic() >= self._resting_until:
            cause = str(error) or type(error).__name__
            _log.warning("the shared cache is left alone for %g s: %s", _PAUSE_S, cause)
        self._resting_until = time.monotonic() + _PAUSE_S


def packed(outputs: Outputs) -> bytes:
    """Outputs as bytes."""
    return _encode({name: _stored(array) for name, array in outputs.items()})


def unpacked(value: bytes) -> Outputs:
    """The outputs in bytes, read-only; raises what msgspec or NumPy say of others."""
    return {name: _restored(tensor) for name, tensor in _decode(value).items()}


def content_digest(version: Path, configuration: str) -> bytes:
    """16 bytes that tell the content of a version's folder and its configuration from any other."""
    digest = hashlib.blake2b(configuration.encode(), digest_size=16)
    for path in _files(version):
        digest.update(f"\0{path.relative_to(version)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.digest()


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _stored(array: Array) -> _Tensor:
    if array.dtype == object:
        texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.reshape(-1).tolist()]
        return _Tensor("O", array.shape, b"", texts)
    return _Tensor(array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes())


def _restored(tensor: _Tensor) -> Array:
    if tensor.texts is not None:
        found = np.empty(len(tensor.texts), dtype=object)
        found[:] = tensor.texts
        return found.reshape(tensor.shape)
    return np.frombuffer(tensor.data, _dtype(tensor.dtype)).reshape(tensor.shape)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
